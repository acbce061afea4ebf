r"""Count the operations of a forward pass: spikes, synaptic operations, membrane updates, bytes, and dense MACs.

A synaptic operation is one weight added to one membrane because one spike arrived. An input spike at (c, y, x) reaches
every output position whose kernel covers it: at most kH·kW positions, fewer at the border and with a stride, times
O/groups channels. The usual approximations are less exact: rate × dense MACs is off by several per cent, spikes × O·k²
by a factor of two. A weight of zero counts, since hardware reads it.

Dense MACs are those of one forward pass of an ordinary network of the same shape. They are given with and without the
taps on padding, since tools differ here (NeuroBench leaves them out, spikingjelly counts them).

Images are counted one by one, each from a reset state, or in groups of φ that share the time axis. With ``carry =
group`` the membranes are carried from image to image, so the same images give other spikes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace

import torch
from torch.nn import functional as F

from ashnets.errors import InputError
from ashnets.export.energy.rates import FiringRates, firing_rates
from ashnets.export.graph import GraphLayer, SpikingGraph, State
from ashnets.export.placement.chips import Chip
from ashnets.export.placement.latency import Clock, Latency
from ashnets.export.placement.placed import Placement
from ashnets.export.placement.traffic import SILENCE, Traffic, traffic_tables
from ashnets.files import JsonObject
from ashnets.model.abstract_encoder import as_sequence
from ashnets.zoo.macs import DenseLayer

EVENT_BITS = 32


@dataclass(frozen=True)
class Steps:
    """A layer's counts at each step, all images together.

    Attributes:
        input_spikes, spikes, synaptic_operations: one number for each step, as in :class:`LayerCounts`.
        traffic: on the chip, for each step; empty without a placement.
    """

    input_spikes: tuple[int, ...]
    spikes: tuple[int, ...]
    synaptic_operations: tuple[int, ...]
    traffic: tuple[Traffic, ...] = ()

    def first(self, steps: int) -> Steps:
        """The first ``steps`` of them."""
        return Steps(
            self.input_spikes[:steps], self.spikes[:steps], self.synaptic_operations[:steps], self.traffic[:steps]
        )

    def __add__(self, later: Steps) -> Steps:
        return Steps(
            self.input_spikes + later.input_spikes,
            self.spikes + later.spikes,
            self.synaptic_operations + later.synaptic_operations,
            self.traffic + later.traffic,
        )


@dataclass(frozen=True)
class LayerCounts:
    """Counts of one spiking layer over all images and steps.

    Attributes:
        name: of the layer.
        neurons: C·h·w.
        input_spikes: spikes that arrived.
        spikes: spikes that the layer fired.
        synaptic_operations: see the head of this module.
        membrane_updates: neurons × steps × images; every membrane leaks at every step.
        dense_macs: of one dense pass of one image, without taps on padding.
        dense_macs_padded: the same with taps on padding.
        input_neurons: C·H·W of the input.
        weights: numbers in W' and b'.
        rates: over the layer's neurons; None after :meth:`Counts.first`.
        by_step: the same counts step by step; None for groups.
        traffic: messages and hops on the chip that bring the input spikes; None without a placement.
    """

    name: str
    neurons: int
    input_spikes: int
    spikes: int
    synaptic_operations: int
    membrane_updates: int
    dense_macs: int
    dense_macs_padded: int
    input_neurons: int = 0
    weights: int = 0
    rates: FiringRates | None = None
    by_step: Steps | None = field(default=None, repr=False)
    traffic: Traffic | None = None

    @property
    def rate(self) -> float:
        """Spikes for each neuron and step."""
        return self.spikes / self.membrane_updates

    @property
    def dense(self) -> DenseLayer:
        """The layer of the ANN of the same shape: one forward pass."""
        return DenseLayer(self.name, self.dense_macs, self.weights, self.input_neurons, self.neurons)


@dataclass(frozen=True)
class Counts:
    """Counts of a spiking graph over ``images`` images of ``steps`` steps each.

    Attributes:
        group_size: φ, images that shared a time axis and carried their membranes over; 1: each from a reset state.
        chip: on which the graph was placed.
    """

    model: str
    images: int
    steps: int
    layers: tuple[LayerCounts, ...]
    group_size: int = 1
    chip: Chip | None = None

    @property
    def input_spikes(self) -> int:
        """Spikes of the sampler, all images."""
        return self.layers[0].input_spikes

    @property
    def spikes(self) -> int:
        """Spikes fired, all layers, all images."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def synaptic_operations(self) -> int:
        """Of all layers and images."""
        return sum(layer.synaptic_operations for layer in self.layers)

    @property
    def membrane_updates(self) -> int:
        """Of all layers and images."""
        return sum(layer.membrane_updates for layer in self.layers)

    @property
    def neurons(self) -> int:
        """Of all layers."""
        return sum(layer.neurons for layer in self.layers)

    @property
    def weights(self) -> int:
        """Numbers in W' and b' of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def dense_macs(self) -> int:
        """Of one dense pass of one image, taps on padding left out."""
        return sum(layer.dense_macs for layer in self.layers)

    @property
    def dense_macs_padded(self) -> int:
        """Of one dense pass of one image, with taps on padding."""
        return sum(layer.dense_macs_padded for layer in self.layers)

    @property
    def input_rate(self) -> float:
        """Spikes for each layer input and step, over all layers: the r that determines synaptic operations."""
        inputs = sum(layer.input_neurons for layer in self.layers)
        return sum(layer.input_spikes for layer in self.layers) / (inputs * self.steps * self.images)

    @property
    def traffic(self) -> Traffic | None:
        """Messages and hops on the chip, of all layers and images; None without a placement."""
        found = [layer.traffic for layer in self.layers if layer.traffic is not None]
        return sum(found, SILENCE) if found else None

    @property
    def operations_per_mac(self) -> float:
        """Synaptic operations of an image for each MAC of one dense pass: r·T, weighted by fan-out."""
        return self.synaptic_operations / self.images / self.dense_macs

    def bytes(self, weight_bits: int = 32, state_bits: int = 32) -> dict[str, int]:
        """Bytes of weights, membranes, and the spikes of one image: as a bitmap of all steps, and as events.

        Args:
            weight_bits, state_bits: of a weight and a membrane. The address of a spike has `EVENT_BITS`. A bitmap has
                one bit for each neuron and step, each layer's steps in whole bytes, the input's included.
        """
        sources = [self.layers[0].input_neurons, *(layer.neurons for layer in self.layers)]
        fired = self.input_spikes + self.spikes
        return {
            "weights": -(-self.weights * weight_bits // 8),
            "state": -(-self.neurons * state_bits // 8),
            "spikes_as_bitmap": sum(-(-neurons // 8) for neurons in sources) * self.steps,
            "spikes_as_events": round(fired * EVENT_BITS / 8 / self.images),
        }

    def first(self, steps: int) -> Counts:
        """Counts of the first ``steps`` steps of each image: exact, since later steps do not affect them.

        Raises:
            InputError: more steps than were run, or groups, whose steps depend on previous images.
        """
        if self.group_size > 1 or not 0 < steps <= self.steps:
            raise InputError(f"first {steps} steps of counts over {self.steps} in groups of φ = {self.group_size}")
        layers = []
        for layer in self.layers:
            by_step = layer.by_step.first(steps)  # type: ignore[union-attr]
            layers.append(
                replace(
                    layer,
                    input_spikes=sum(by_step.input_spikes),
                    spikes=sum(by_step.spikes),
                    synaptic_operations=sum(by_step.synaptic_operations),
                    membrane_updates=layer.neurons * steps * self.images,
                    rates=None,
                    by_step=by_step,
                    traffic=sum(by_step.traffic, SILENCE) if by_step.traffic else None,
                )
            )
        return replace(self, steps=steps, layers=tuple(layers))

    def then(self, later: Counts) -> Counts:
        """These counts followed by the ``later`` steps of the same images, from the same state; without rates."""
        layers = []
        for layer, more in zip(self.layers, later.layers, strict=True):
            layers.append(replace(layer, by_step=layer.by_step + more.by_step))  # type: ignore[operator]
        both = replace(self, steps=self.steps + later.steps, layers=tuple(layers))
        return both.first(both.steps)

    def to_dict(self) -> JsonObject:
        """For JSON: totals, then each layer with its firing rate."""
        totals = (
            "input_spikes",
            "spikes",
            "synaptic_operations",
            "membrane_updates",
            "neurons",
            "weights",
            "dense_macs",
            "dense_macs_padded",
            "input_rate",
            "operations_per_mac",
        )
        return {
            "model": self.model,
            "images": self.images,
            "steps": self.steps,
            "group_size": self.group_size,
            **{name: getattr(self, name) for name in totals},
            "bytes": self.bytes(),
            "layers": [{**asdict(layer), "rate": layer.rate} for layer in self.layers],
        }


class Counter:
    """Counts over many batches of images.

    Args:
        graph: see :func:`ashnets.export.graph.from_model`.
        placement: of the graph on a chip, to count messages, hops and time too.
    """

    def __init__(self, graph: SpikingGraph, placement: Placement | None = None) -> None:
        self.graph = graph
        self._tables = traffic_tables(placement) if placement else []
        self._clock = Clock(placement) if placement else None
        self._chip = placement.chip if placement else None
        self._images = 0
        self._mode: tuple[int, int] | None = None  # steps an image, φ
        self._reach = [fan_out(layer) for layer in graph.layers]
        self._fired = [torch.zeros(layer.output_shape, dtype=torch.float64) for layer in graph.layers]
        self._by_step: list[torch.Tensor] = []  # (T',) a layer: spikes in, spikes out, synaptic operations

    def add(
        self, spikes: torch.Tensor, state: State | None = None, group_size: int = 1, carry: str | None = None
    ) -> State:
        """Run images and count, exactly.

        Args:
            spikes: (T, B, C, H, W), 0 and 1: B images of T steps.
            state: membranes to start from; ``None`` starts from a reset state.
            group_size: φ, consecutive images of a group.
            carry: ``group`` carries the membranes on within a group, ``image`` resets them at each image; the
                graph's own by default.

        Returns:
            The membranes after the last step.

        Raises:
            InputError: B is not a multiple of φ, or T or φ differ from earlier calls.
        """
        steps, images = spikes.shape[:2]
        if group_size < 1 or images % group_size:
            raise InputError(f"{images} images do not divide into groups of φ = {group_size}")
        carried = group_size if (carry or self.graph.carry) == "group" else 1
        if self._mode not in (None, (steps, carried)):
            raise InputError(f"{steps} steps in groups of {carried} after {self._mode}, steps and φ: use a new counter")
        self._mode = steps, carried
        self._images += images
        arriving = as_sequence(spikes, carried) if carried > 1 else spikes
        outputs, state = self.graph.run(arriving, state)
        by_step: list[torch.Tensor] = []
        # A position or neuron has fewer than 2²⁴ spikes in one batch, which float32 adds exactly; totals need float64.
        arrivals = arriving.sum((1, 2)).double()  # (T', H, W)
        for i, layer in enumerate(self.graph.layers):
            fired = outputs[layer.name]
            leaving = fired.sum((1, 2)).double()
            by_step += [arrivals.sum((1, 2)), leaving.sum((1, 2)), (arrivals * self._reach[i]).sum((1, 2))]
            if self._tables:
                source = arriving if i == 0 else outputs[self.graph.layers[i - 1].name]
                by_step += list((source.sum(1).double().flatten(1) @ self._tables[i]).T)  # (T',) each
            self._fired[i] += fired.sum((0, 1))
            arrivals = leaving
        if self._clock and carried == 1:
            self._clock.add(arriving, outputs)
        self._by_step = [a + b for a, b in zip(self._by_step, by_step, strict=True)] if self._by_step else by_step
        return state

    def counts(self) -> Counts:
        """The counts so far.

        Raises:
            InputError: nothing was counted.
        """
        if self._mode is None:
            raise InputError("nothing was counted: add() images first")
        steps, group_size = self._mode
        layers, series = [], 6 if self._tables else 3
        for i, layer in enumerate(self.graph.layers):
            numbers = [tuple(int(n) for n in one) for one in self._by_step[series * i : series * (i + 1)]]
            arrived, fired, operations = map(sum, numbers[:3])
            traffic = tuple(Traffic(*step) for step in zip(*numbers[3:], strict=True))
            seen = steps * self._images
            layers.append(
                LayerCounts(
                    name=layer.name,
                    neurons=layer.neurons,
                    input_spikes=arrived,
                    spikes=fired,
                    synaptic_operations=operations,
                    membrane_updates=layer.neurons * seen,
                    dense_macs=int(self._reach[i].sum()) * layer.input_shape[0],
                    dense_macs_padded=layer.neurons * math.prod(layer.weight.shape[1:]),
                    input_neurons=math.prod(layer.input_shape),
                    weights=layer.weight.numel() + layer.bias.numel(),
                    rates=firing_rates(self._fired[i], seen),
                    by_step=Steps(numbers[0], numbers[1], numbers[2], traffic) if group_size == 1 else None,
                    traffic=sum(traffic, SILENCE) if traffic else None,
                )
            )
        return Counts(self.graph.name, self._images, steps, tuple(layers), group_size, self._chip)

    def latency(self) -> Latency | None:
        """Time of a step and an image on the chip; None without a placement, or for groups."""
        return self._clock.result() if self._clock and self._mode and self._mode[1] == 1 else None


def count(
    graph: SpikingGraph,
    spikes: torch.Tensor,
    state: State | None = None,
    group_size: int = 1,
    carry: str | None = None,
    placement: Placement | None = None,
) -> Counts:
    """Run the graph on one batch and count, exactly; see :class:`Counter` and :meth:`Counter.add`."""
    counter = Counter(graph, placement)
    counter.add(spikes, state, group_size, carry)
    return counter.counts()


def fan_out(layer: GraphLayer) -> torch.Tensor:
    """Synapses that leave an input neuron at each place: (H, W), float64 integers, equal for all input channels."""
    outputs, _, *kernel = layer.weight.shape
    height, width = layer.input_shape[1:]
    taps = torch.ones(1, 1, *kernel, dtype=torch.float64)
    ones = torch.ones(1, 1, *layer.output_shape[1:], dtype=torch.float64)
    # The transpose of a convolution of ones sends each output's one to all places that its kernel covers.
    reached = F.conv_transpose2d(ones, taps, stride=layer.stride, dilation=layer.dilation)[0, 0]
    place = torch.zeros(height + 2 * layer.padding[0], width + 2 * layer.padding[1], dtype=torch.float64)
    place[: reached.shape[0], : reached.shape[1]] = reached
    inside = place[layer.padding[0] : layer.padding[0] + height, layer.padding[1] : layer.padding[1] + width]
    return inside * (outputs // layer.groups)
