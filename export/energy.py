r"""Energy estimates: counts times constants of a hardware profile.

    E = synaptic operations · E_synapse + membrane updates · E_neuron         spiking branch
    E = MACs · E_MAC                                                          an ordinary network beside it

The constants come from a profile, a JSON file that gives each its unit, source and year. The same counts favour the
spiking side under one profile and the dense side under another, so show several. Every figure is an estimate: weights
and state are taken as free to fetch, and in real systems memory traffic can cost many times the arithmetic.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ashnets.errors import ConfigurationError
from ashnets.export.count import Counts

CONSTANTS = ("synaptic_operation", "neuron_update", "mac")
FIELDS = ("value", "unit", "source", "year")
ASSUMPTIONS = (
    "arithmetic alone: fetching weights, membranes and spikes is not counted",
    "every membrane is updated at every step",
    "static power, input sampling and the host are not counted",
)


@dataclass(frozen=True)
class Constant:
    """Energy of one operation in pJ, where the figure comes from, and its year."""

    value: float
    unit: str
    source: str
    year: int


@dataclass(frozen=True)
class Profile:
    """Constants of one kind of hardware.

    Attributes:
        name: of the file, such as ``45nm-fp32``.
        title: for people.
        synaptic_operation: one weight added because of one spike.
        neuron_update: one membrane, one step.
        mac: one multiply-accumulate of the ordinary network that is set beside it.
        assumptions: what the figures take for granted.
    """

    name: str
    title: str
    synaptic_operation: Constant
    neuron_update: Constant
    mac: Constant
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """Estimated energy of one picture, in pJ.

    Attributes:
        model: the model that was counted.
        data: what it was counted on.
        profile: the hardware's constants.
        synapse, neuron: the two parts of the spiking branch.
        dense_twin: one pass of an ordinary network of the same shape (taps on padding left out).
        artificial: the parts of ``dense_macs`` on the same profile's MAC, by name.
        break_even: r·T, spikes an input neuron may send for each picture until its synapses cost what one dense pass
            costs.
        assumptions: all that hold.
    """

    model: str
    data: str
    profile: Profile
    synapse: float
    neuron: float
    dense_twin: float
    artificial: dict[str, float]
    break_even: float
    assumptions: tuple[str, ...]

    @property
    def spiking(self) -> float:
        """Synapse and neuron together."""
        return self.synapse + self.neuron

    def to_dict(self) -> dict[str, Any]:
        """For JSON; says ``estimate`` and names unit, constants and sources."""
        constants = {name: vars(getattr(self.profile, name)) for name in CONSTANTS}
        return {
            "kind": "estimate",
            "unit": "pJ a picture",
            "model": self.model,
            "data": self.data,
            "profile": self.profile.name,
            "title": self.profile.title,
            "constants": constants,
            "spiking": {"synapse": self.synapse, "neuron": self.neuron, "total": self.spiking},
            "dense_twin": self.dense_twin,
            "artificial": self.artificial,
            "break_even_spikes": self.break_even,
            "assumptions": list(self.assumptions),
        }


def estimate(
    counts: Counts, profile: Profile, artificial_macs: dict[str, int] | None = None, data: str | None = None
) -> Estimate:
    """Energy of one picture, the mean over the pictures counted.

    Args:
        counts: of the spiking branch.
        profile: see :func:`load_profile`.
        artificial_macs: MACs a picture of the ordinary parts, see :func:`ashnets.export.count.dense_macs`.
        data: what was counted, for the label; the number of pictures and steps by default.
    """
    mac = profile.mac.value
    return Estimate(
        model=counts.model,
        data=data or f"{counts.pictures} pictures of {counts.steps} steps",
        profile=profile,
        synapse=counts.synaptic_operations / counts.pictures * profile.synaptic_operation.value,
        neuron=counts.membrane_updates / counts.pictures * profile.neuron_update.value,
        dense_twin=counts.dense_macs * mac,
        artificial={name: macs * mac for name, macs in (artificial_macs or {}).items()},
        break_even=mac / profile.synaptic_operation.value,
        assumptions=(*profile.assumptions, *ASSUMPTIONS),
    )


def profile_names() -> list[str]:
    """The bundled profiles."""
    return sorted(p.name.removesuffix(".json") for p in _bundled().iterdir() if p.name.endswith(".json"))


def load_profile(name: str | Path) -> Profile:
    """A bundled profile by its name, or a file of the same form.

    Raises:
        ConfigurationError: no such profile, or a constant without value, unit (pJ), source or year.
    """
    path = Path(name)
    if path.suffix != ".json":
        if str(name) not in profile_names():
            raise ConfigurationError(
                f"no energy profile {str(name)!r}: give the path of a .json file or one of {', '.join(profile_names())}"
            )
        path = Path(str(_bundled() / f"{name}.json"))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(found, dict) or set(found) != {"title", "assumptions", *CONSTANTS}:
        raise ConfigurationError(f"{path} must hold exactly: title, assumptions, {', '.join(CONSTANTS)}")
    if not isinstance(found["assumptions"], list):
        raise ConfigurationError(f"{path}: assumptions={found['assumptions']!r} must be a list of sentences")
    constants = {key: _constant(path, key, found[key]) for key in CONSTANTS}
    return Profile(
        name=path.stem, title=str(found["title"]), assumptions=tuple(map(str, found["assumptions"])), **constants
    )


def _constant(path: Path, key: str, entry: Any) -> Constant:
    if not isinstance(entry, dict) or set(entry) != set(FIELDS):
        raise ConfigurationError(f"{path}: {key}={entry!r} must hold exactly: {', '.join(FIELDS)}")
    value, year = entry["value"], entry["year"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigurationError(f"{path}: {key}.value={value!r} must be a number, at least 0")
    if entry["unit"] != "pJ":
        raise ConfigurationError(f"{path}: {key}.unit={entry['unit']!r} must be 'pJ'")
    if not isinstance(year, int) or not str(entry["source"]).strip():
        raise ConfigurationError(f"{path}: {key} needs its source, in words, and the year as a number")
    return Constant(value=float(value), unit="pJ", source=str(entry["source"]), year=year)


def _bundled() -> Any:
    return resources.files("ashnets.export") / "profiles"
