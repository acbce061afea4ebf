"""Hardware profiles: data files with the energy of each operation; each constant has unit, source and year.

A profile has two sides. ``spiking`` is the hardware of the spiking branch. ``dense`` is the hardware of ordinary
networks: either its own constants or those of another profile (``dense: {profile: a100-bf16}``). ``memory`` lists the
levels from the smallest to the largest; it is left out if the constants already include memory traffic. For a new
profile, copy ``template.yaml`` and fill it in.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ashnets.errors import ConfigurationError

FOLDER = Path(__file__).resolve().parent
TEMPLATE = "template"
# Three profiles with different verdicts: shown by default.
DEFAULT = ("45nm-fp32", "45nm-int8", "loihi1-vs-a100")

PICOJOULES = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "µJ": 1e6}
KEYS = {"title", "bits", "spiking", "dense", "assumptions"}
BITS = ("weight", "state", "activation", "event")
SPIKING = ("synaptic_operation", "neuron_update")
SPIKING_TOO = ("spike", "routed_operation", "message", "hop")
DENSE = ("mac", "mac_int8")
EXECUTIONS = ("events", "dense")
FIELDS = ("value", "unit", "source", "year")
LEVEL = ("name", "bytes", "access_bits", "access")


@dataclass(frozen=True)
class Constant:
    """Energy of one operation, as its source gives it, with the source and its year."""

    value: float
    unit: str
    source: str
    year: int

    @property
    def picojoules(self) -> float:
        """The value in pJ."""
        return self.value * PICOJOULES[self.unit]


@dataclass(frozen=True)
class Level:
    """One level of the memory.

    Attributes:
        name: of the level.
        bytes: capacity; None: unlimited.
        access_bits: width of an access.
        access: energy of one access.
    """

    name: str
    bytes: int | None
    access_bits: int
    access: Constant


@dataclass(frozen=True)
class Bits:
    """Widths of a weight, a membrane, an activation of an ordinary network, and the address of a spike."""

    weight: int
    state: int
    activation: int
    event: int


@dataclass(frozen=True)
class Profile:
    """Constants of one kind of hardware.

    Attributes:
        name: of the file, such as ``45nm-fp32``.
        title: one line for readers.
        bits: widths for counting memory traffic.
        execution: ``events``: work is done where a spike arrives. ``dense``: every tap is computed at every step.
        synaptic_operation: one weight added because of one spike (``dense``: one tap).
        neuron_update: one membrane, one step.
        mac: one multiply-accumulate of an ordinary network.
        mac_int8: the same with 8-bit integers.
        dense_title: the hardware of these two.
        memory: levels, smallest first; empty if the constants include memory traffic.
        assumptions: behind the figures.
        spike: extra cost of a neuron that fires; None: the other constants include it.
        routed_operation: routing, if the source gives it for each synaptic operation.
        message: routing, if the source gives it for each spike that is sent.
        hop: routing from tile to tile, for each spike that is sent, times ``hops``.
        hops: assumed number of tiles that a spike crosses.
    """

    name: str
    title: str
    bits: Bits
    execution: str
    synaptic_operation: Constant
    neuron_update: Constant
    mac: Constant
    mac_int8: Constant
    dense_title: str
    memory: tuple[Level, ...]
    assumptions: tuple[str, ...]
    spike: Constant | None = None
    routed_operation: Constant | None = None
    message: Constant | None = None
    hop: Constant | None = None
    hops: float = 0.0

    def constants(self) -> dict[str, dict[str, Any]]:
        """Every constant by its name, for JSON."""
        found = {name: getattr(self, name) for name in (*SPIKING, *SPIKING_TOO, *DENSE)}
        found |= {f"memory: {level.name}": level.access for level in self.memory}
        return {name: asdict(constant) for name, constant in found.items() if constant is not None}


def profile_names(every: bool = False) -> list[str]:
    """Names of bundled profiles: the three that are shown by default, or all."""
    if not every:
        return list(DEFAULT)
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != TEMPLATE)


def load_profile(name: str | Path) -> Profile:
    """Load a bundled profile by its name, or a file of the same form.

    Raises:
        ConfigurationError: no such profile; an unknown or missing key, or an invalid value; a constant without value,
            unit, source or year. The message names file, key, value and remedy.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) == TEMPLATE:
            raise ConfigurationError(
                f"{TEMPLATE} contains no figures: cp {shlex.quote(str(FOLDER / 'template.yaml'))} my-chip.yaml, "
                "fill it in, and give --profile my-chip.yaml"
            )
        if str(name) not in profile_names(every=True):
            raise ConfigurationError(
                f"no energy profile {str(name)!r}: give the path of a .yaml file or one of "
                f"{', '.join(profile_names(every=True))}"
            )
        path = FOLDER / f"{name}.yaml"
    return _Reader(path).profile()


class _Reader:
    """Reads one file and refuses anything unexpected."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def profile(self) -> Profile:
        found = self._yaml()
        self._keys("the file", found, KEYS, {"memory"})
        title = found["title"]
        if not isinstance(title, str) or not title.strip():
            self._refuse(f"title={title!r} must name the hardware in words")
        spiking, bits = found["spiking"], found["bits"]
        self._keys("spiking", spiking, {"execution", *SPIKING}, {*SPIKING_TOO, "hops"})
        if spiking["execution"] not in EXECUTIONS:
            self._refuse(f"spiking.execution={spiking['execution']!r} must be {' or '.join(EXECUTIONS)}")
        if ("hop" in spiking) != ("hops" in spiking):
            self._refuse(
                "give both spiking.hop, the energy from tile to tile, and spiking.hops, their number, or neither"
            )
        self._keys("bits", bits, set(BITS))
        for key in BITS:
            self._whole(f"bits.{key}", bits[key])
        assumptions = found["assumptions"]
        if not isinstance(assumptions, list) or not all(isinstance(a, str) and a.strip() for a in assumptions):
            self._refuse(f"assumptions={assumptions!r} must be a list of sentences")
        mac, mac_int8, dense_title = self._dense(found["dense"], title)
        return Profile(
            name=self.path.stem,
            title=title,
            bits=Bits(**bits),
            execution=spiking["execution"],
            synaptic_operation=self._constant("spiking.synaptic_operation", spiking["synaptic_operation"]),
            neuron_update=self._constant("spiking.neuron_update", spiking["neuron_update"]),
            **{key: self._constant(f"spiking.{key}", spiking[key]) for key in SPIKING_TOO if key in spiking},
            hops=self._number("spiking.hops", spiking.get("hops", 0)),
            mac=mac,
            mac_int8=mac_int8,
            dense_title=dense_title,
            memory=self._memory(found.get("memory", [])),
            assumptions=tuple(assumptions),
        )

    def _yaml(self) -> dict[str, Any]:
        try:
            found = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{self.path} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{self.path} is not valid YAML ({' '.join(str(error).split())})") from None
        if not isinstance(found, dict):
            self._refuse(f"contains {type(found).__name__}, not the keys {', '.join(sorted(KEYS))}")
        return found

    def _dense(self, dense: Any, title: str) -> tuple[Constant, Constant, str]:
        if isinstance(dense, dict) and set(dense) == {"profile"}:
            other = dense["profile"]
            if other not in profile_names(every=True):
                self._refuse(
                    f"dense.profile={other!r} must be a bundled profile, one of {', '.join(profile_names(every=True))}"
                )
            partner = load_profile(other)
            return partner.mac, partner.mac_int8, partner.title
        self._keys("dense", dense, set(DENSE))
        return self._constant("dense.mac", dense["mac"]), self._constant("dense.mac_int8", dense["mac_int8"]), title

    def _memory(self, levels: Any) -> tuple[Level, ...]:
        if not isinstance(levels, list):
            self._refuse(f"memory={levels!r} must be a list of levels, smallest first")
        found: list[Level] = []
        for i, level in enumerate(levels):
            key = f"memory[{i}]"
            self._keys(key, level, set(LEVEL))
            size = level["bytes"]
            if size is not None:
                self._whole(f"{key}.bytes", size)
            if size is None and i + 1 < len(levels):
                self._refuse(f"{key}.bytes is null: only the last level may be unlimited")
            if found and size is not None and size <= (found[-1].bytes or 0):
                self._refuse(f"{key}.bytes={size!r} must be larger than the {found[-1].bytes} of the previous level")
            self._whole(f"{key}.access_bits", level["access_bits"])
            access = self._constant(f"{key}.access", level["access"])
            found.append(Level(str(level["name"]), size, level["access_bits"], access))
        if found and found[-1].bytes is not None:
            self._refuse(
                f"memory[{len(found) - 1}].bytes must be null: the last level stores everything that fits nowhere else"
            )
        return tuple(found)

    def _constant(self, key: str, entry: Any) -> Constant:
        self._keys(key, entry, set(FIELDS))
        unit, source, year = entry["unit"], entry["source"], entry["year"]
        value = self._number(f"{key}.value", entry["value"])
        if unit not in PICOJOULES:
            self._refuse(f"{key}.unit={unit!r} must be one of {', '.join(PICOJOULES)}")
        if not isinstance(source, str) or not source.strip():
            self._refuse(f"{key}.source={source!r} must name the source of the figure in words")
        if isinstance(year, bool) or not isinstance(year, int) or not 1900 < year < 2100:
            self._refuse(f"{key}.year={year!r} must be the year of the source, as a number")
        return Constant(value, unit, source, year)

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            self._refuse(f"{key}={value!r} must be a number, at least 0 (write 1.0e-3, not 1e-3)")
        return float(value)

    def _whole(self, key: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self._refuse(f"{key}={value!r} must be a whole number, at least 1")

    def _keys(self, key: str, entry: Any, needed: set[str], allowed: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        if not isinstance(entry, dict):
            self._refuse(f"{key}={entry!r} must contain the keys {', '.join(sorted(needed))}")
        if missing := sorted(needed - set(entry)):
            self._refuse(f"{key} lacks {', '.join(missing)}; export/energy/profiles/template.yaml shows the form")
        if unknown := sorted(map(str, set(entry) - needed - allowed)):
            self._refuse(f"{key} has no key {', '.join(unknown)}; it takes {', '.join(sorted(needed | allowed))}")

    def _refuse(self, what: str) -> Any:
        raise ConfigurationError(f"{self.path}: {what}")
