r"""Energy estimates: counts times constants of a hardware profile.

    synapse = S·E_synapse        neuron = U·E_update + F·E_spike        memory: see ashnets.export.energy.memory
    routing = S·E_routed + (F + F_0)·(E_message + hops·E_hop)           MACs·E_MAC for an ordinary network

S synaptic operations, U membrane updates, F spikes fired and F_0 spikes of the sampler, for one image. Where the counts
come from a placement on the profile's chip, or on one with the same energy constants, routing is the energy of its
messages and hops (:mod:`ashnets.export.placement.traffic`); the formula above only assumes them. Hardware that computes
every tap at every step (``execution: dense``) has S = T · dense MACs instead. The same counts favor the spiking side
under one profile and the dense side under another, so several profiles are shown. Memory traffic can cost many times
the arithmetic; it is reported separately, as an interval. Every figure is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ashnets.export.counting import Counts
from ashnets.export.energy.memory import INT8, NONE, Interval, dense_traffic, spiking_traffic
from ashnets.export.energy.profiles import Profile, load_profile, profile_names
from ashnets.export.figures import Constant
from ashnets.zoo.macs import DenseLayer

__all__ = [
    "ASSUMPTIONS",
    "BreakEven",
    "Constant",
    "Estimate",
    "Interval",
    "Profile",
    "estimate",
    "load_profile",
    "over_rate",
    "over_steps",
    "profile_names",
    "scaled",
]

ASSUMPTIONS = (
    "every membrane is updated at every step",
    "the ANN of the same shape as the spiking branch is counted for one pass; its accuracy was not measured",
    "static power, input sampling and the host are not counted",
)
MEMORY = (
    "memory is an interval: the low end moves each value once and needs buffers that are not counted; the high end has "
    "an access for every operation and no reuse; each tensor is stored in the smallest memory that is large enough"
)


@dataclass(frozen=True)
class BreakEven:
    """The input rate at which the spiking branch costs as much as the ANN of the same shape; all rates scale together.

    Attributes:
        verdict: ``below``: it is cheaper at input rates below ``rate``. ``never``: its neurons alone cost more.
            ``always``: it is cheaper even if every input fired at every step.
        rate: the input rate, spikes an input and step; None unless the verdict is ``below``.
    """

    verdict: str
    rate: float | None


@dataclass(frozen=True)
class Estimate:
    """Estimated energy of one image, in pJ.

    Attributes:
        model: the model that was counted.
        data: what it was counted on.
        profile: the hardware's constants.
        synapse, neuron, routing, memory: the parts of the spiking branch.
        dense_twin: one pass of the ANN of the same shape (taps on padding left out), and its memory.
        int8_twin: the same ANN in 8-bit integers, and its memory.
        artificial: the parts of the model that do not spike, by name, with the profile's MAC energy, and their memory.
        break_even: r·T, spikes for each input and image, at which the synapses and their routing, messages and hops
            included, cost as much as one pass of that ANN; None if the energy does not depend on spikes
            (``execution: dense``).
        counted: the counted r·T: synaptic operations for each MAC of that pass.
        break_even_rate, break_even_with_memory: without memory, and with the high end of memory on both sides.
        input_rate: counted spikes for each input and step.
        assumptions: behind all figures.
        placed: routing is counted, with the constants of the profile's chip; False: it is assumed.
    """

    model: str
    data: str
    profile: Profile
    synapse: float
    neuron: float
    routing: float
    memory: Interval
    dense_twin: float
    dense_twin_memory: Interval
    int8_twin: float
    int8_twin_memory: Interval
    artificial: dict[str, float]
    artificial_memory: dict[str, Interval]
    break_even: float | None
    counted: float
    break_even_rate: BreakEven
    break_even_with_memory: BreakEven
    input_rate: float
    assumptions: tuple[str, ...]
    placed: bool = False

    @property
    def spiking(self) -> float:
        """Synapse, neuron and routing together, without memory."""
        return self.synapse + self.neuron + self.routing

    @property
    def total(self) -> Interval:
        """The spiking branch with its memory."""
        return Interval(self.spiking + self.memory.low, self.spiking + self.memory.high)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, labeled as an estimate, with unit, constants and sources."""
        return {
            "kind": "estimate",
            "unit": "pJ an image",
            "model": self.model,
            "data": self.data,
            "profile": self.profile.name,
            "title": self.profile.title,
            "dense_title": self.profile.dense_title,
            "constants": self.profile.constants(),
            "bits": asdict(self.profile.bits),
            "routing": "placed" if self.placed else "assumed",
            "hops": self.profile.hops,
            "execution": self.profile.execution,
            "spiking": {
                "synapse": self.synapse,
                "neuron": self.neuron,
                "routing": self.routing,
                "memory": asdict(self.memory),
                "total": self.spiking,
                "total_with_memory": asdict(self.total),
            },
            "dense_twin": self.dense_twin,
            "dense_twin_with_memory": _with_memory(self.dense_twin, self.dense_twin_memory),
            "int8_twin": self.int8_twin,
            "int8_twin_with_memory": _with_memory(self.int8_twin, self.int8_twin_memory),
            "artificial": self.artificial,
            "artificial_with_memory": {
                part: _with_memory(self.artificial[part], memory) for part, memory in self.artificial_memory.items()
            },
            "break_even_spikes": self.break_even,
            "counted_spikes": self.counted,
            "break_even_rate": asdict(self.break_even_rate),
            "break_even_rate_with_memory": asdict(self.break_even_with_memory),
            "counted_rate": self.input_rate,
            "assumptions": list(self.assumptions),
        }


def estimate(
    counts: Counts,
    profile: Profile,
    artificial: Mapping[str, int | Sequence[DenseLayer]] | None = None,
    data: str | None = None,
) -> Estimate:
    """Energy of one image: the mean over the counted images.

    Args:
        counts: of the spiking branch.
        profile: see :func:`load_profile`.
        artificial: the ordinary parts by name, layer by layer from :func:`ashnets.zoo.macs.dense_layers`; MACs
            alone (``dense_macs``) give no memory traffic.
        data: the label of the counted images; their number and the steps by default.
    """
    parts = artificial_energy(artificial or {}, profile)
    synapse, neuron, routing = _spiking(counts, profile)
    memory = _traffic(counts, profile)
    layers = [layer.dense for layer in counts.layers]
    twin = counts.dense_macs * profile.mac.picojoules
    twin_memory = dense_traffic(layers, profile.memory, profile.bits.weight, profile.bits.activation)
    placed, operations = on_chip(counts, profile), counts.synaptic_operations / counts.images
    routed = routing / operations if operations else _pj(profile.routed_operation)
    per_operation = profile.synaptic_operation.picojoules + routed
    silent = scaled(counts, 0.0)
    still, quiet = sum(_spiking(silent, profile)), _traffic(silent, profile)
    spiking = synapse + neuron + routing
    events = profile.execution == "events"
    return Estimate(
        model=counts.model,
        data=data or f"{counts.images} images of {counts.steps} steps",
        profile=profile,
        synapse=synapse,
        neuron=neuron,
        routing=routing,
        memory=memory,
        dense_twin=twin,
        dense_twin_memory=twin_memory,
        int8_twin=counts.dense_macs * profile.mac_int8.picojoules,
        int8_twin_memory=dense_traffic(layers, profile.memory, INT8, INT8),
        artificial={part: compute for part, (compute, _) in parts.items()},
        artificial_memory={part: traffic for part, (_, traffic) in parts.items()},
        break_even=profile.mac.picojoules / per_operation if events and per_operation else None,
        counted=counts.operations_per_mac,
        break_even_rate=_break_even(still, spiking, twin, counts.input_rate),
        break_even_with_memory=_break_even(
            still + quiet.high, spiking + memory.high, twin + twin_memory.high, counts.input_rate
        ),
        input_rate=counts.input_rate,
        assumptions=(
            *profile.assumptions,
            *(() if placed else profile.assumed_routing),
            *ASSUMPTIONS,
            *([MEMORY] if profile.memory else []),
        ),
        placed=placed,
    )


def artificial_energy(
    artificial: Mapping[str, int | Sequence[DenseLayer]], profile: Profile
) -> dict[str, tuple[float, Interval]]:
    """Arithmetic (with the profile's MAC energy) and memory of ordinary parts, by name, in pJ an image."""
    found = {}
    for part, work in artificial.items():
        macs = work if isinstance(work, int) else sum(layer.macs for layer in work)
        layers = () if isinstance(work, int) else work
        traffic = dense_traffic(layers, profile.memory, profile.bits.weight, profile.bits.activation)
        found[part] = (macs * profile.mac.picojoules, traffic)
    return found


def over_steps(counts: Counts, profile: Profile) -> list[dict[str, float]]:
    """Energy of the spiking branch after each step: counted, not extrapolated.

    Args:
        counts: of single images, over as many steps as the curve has points.
    """
    return [{"steps": steps, **_point(counts.first(steps), profile)} for steps in range(1, counts.steps + 1)]


def over_rate(counts: Counts, profile: Profile, points: int = 21) -> list[dict[str, float]]:
    """Energy of the spiking branch over the input rate, from silence on; the rates of all layers scale together.

    The last point is twice the counted input rate, or the rate at which the inputs of the busiest layer fire at every
    step.
    """
    busiest = max(layer.input_spikes / (layer.input_neurons * counts.steps * counts.images) for layer in counts.layers)
    largest = min(2.0, 1 / busiest) if busiest else 0.0
    factors = [largest * i / (points - 1) for i in range(points)]
    return [{"rate": f * counts.input_rate, **_point(scaled(counts, f), profile)} for f in factors]


def scaled(counts: Counts, factor: float) -> Counts:
    """The counts as they would be if every spike came ``factor`` times as often, rounded to whole numbers."""
    layers = [
        replace(
            layer,
            input_spikes=round(layer.input_spikes * factor),
            spikes=round(layer.spikes * factor),
            synaptic_operations=round(layer.synaptic_operations * factor),
            rates=None,
            by_step=None,
            traffic=layer.traffic.scaled(factor) if layer.traffic else None,
        )
        for layer in counts.layers
    ]
    return replace(counts, layers=tuple(layers))


def on_chip(counts: Counts, profile: Profile) -> bool:
    """Whether the counts come from a placement that gives the profile's routing: its chip's constants are charged."""
    return counts.chip is not None and counts.traffic is not None and counts.chip.energy == profile.chip_energy


def _point(counts: Counts, profile: Profile) -> dict[str, float]:
    arithmetic, memory = sum(_spiking(counts, profile)), _traffic(counts, profile)
    return {"spiking": arithmetic, "low": arithmetic + memory.low, "high": arithmetic + memory.high}


def _spiking(counts: Counts, profile: Profile) -> tuple[float, float, float]:
    """Synapse, neuron, routing of one image."""
    n = counts.images
    operations = counts.synaptic_operations / n
    if profile.execution == "dense":
        operations = counts.steps * counts.dense_macs
    updates, fired, sent = counts.membrane_updates / n, counts.spikes / n, (counts.spikes + counts.input_spikes) / n
    synapse = operations * profile.synaptic_operation.picojoules
    neuron = updates * profile.neuron_update.picojoules + fired * _pj(profile.spike)
    if on_chip(counts, profile):
        return synapse, neuron, counts.traffic.picojoules(counts.chip) / n  # type: ignore[union-attr, arg-type]
    routing = operations * _pj(profile.routed_operation)
    routing += sent * (_pj(profile.message) + profile.hops * _pj(profile.hop))
    return synapse, neuron, routing


def _traffic(counts: Counts, profile: Profile) -> Interval:
    if profile.execution == "events":
        return spiking_traffic(counts, profile.memory, profile.bits)
    one = dense_traffic(
        [layer.dense for layer in counts.layers], profile.memory, profile.bits.weight, profile.bits.activation
    )
    return sum([one] * counts.steps, NONE)


def _break_even(silent: float, counted: float, twin: float, rate: float) -> BreakEven:
    if silent >= twin:
        return BreakEven("never", None)
    if counted <= silent or not rate:
        return BreakEven("always", None)
    found = rate * (twin - silent) / (counted - silent)
    return BreakEven("always", None) if found >= 1 else BreakEven("below", found)


def _pj(constant: Constant | None) -> float:
    return constant.picojoules if constant else 0.0


def _with_memory(arithmetic: float, memory: Interval) -> dict[str, float]:
    return {"low": arithmetic + memory.low, "high": arithmetic + memory.high}
