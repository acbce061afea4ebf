"""Hardware profiles: data files with the energy of each operation; each constant has unit, source and year.

A profile has two sides. ``spiking`` is the hardware of the spiking branch. ``dense`` is the hardware of ordinary
networks: either its own constants or those of another profile (``dense: {profile: a100-bf16}``). ``memory`` lists the
levels from the smallest to the largest; it is left out if the constants already include memory traffic. ``chip`` names
the chip file on which the spiking branch is placed; its messages and hops then replace ``routed_operation``,
``message`` and ``hop``. A placement on a chip with other energy constants does not replace them. A name such as
``loihi1-with-a100`` is a pair: the spiking branch on Loihi 1, all other parts on an A100. For a new profile, copy
``template.yaml`` and fill it in.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ashnets.errors import ConfigurationError
from ashnets.export.figures import Constant, FigureFile
from ashnets.export.placement.chips import chip_names, load_chip

FOLDER = Path(__file__).resolve().parent
TEMPLATE = "template"
# Three profiles with different verdicts: shown by default.
DEFAULT = ("45nm-fp32", "45nm-int8", "loihi1-with-a100")

KEYS = {"title", "bits", "spiking", "dense", "assumptions"}
BITS = ("weight", "state", "activation", "event")
SPIKING = ("synaptic_operation", "neuron_update")
SPIKING_TOO = ("spike", "routed_operation", "message", "hop")
DENSE = ("mac", "mac_int8")
EXECUTIONS = ("events", "dense")
LEVEL = ("name", "bytes", "access_bits", "access")


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
        chip: name or path of the chip file for the placement; None: routing is assumed.
        chip_energy: the energy constants of this chip.
        assumed_routing: sentences that hold only without a placement.
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
    chip: str | None = None
    chip_energy: dict[str, Constant] | None = None
    assumed_routing: tuple[str, ...] = ()

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


def load_profiles(names: Sequence[str | os.PathLike]) -> list[Profile]:
    """Load profiles for one report, in which each is known by its name.

    Raises:
        ConfigurationError: as in :func:`load_profile`, or two have the same name.
    """
    found: dict[str, tuple[str, Profile]] = {}
    for given in names:
        one = os.fspath(given)
        profile = load_profile(one)
        if profile.name in found:
            raise ConfigurationError(
                f"the energy profiles {found[profile.name][0]} and {one} have the same name, {profile.name!r}: leave "
                "one out, or rename its file"
            )
        found[profile.name] = one, profile
    return [profile for _, profile in found.values()]


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


class _Reader(FigureFile):
    """Reads one file and refuses anything unexpected."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "export/energy/profiles/template.yaml")

    def profile(self) -> Profile:
        found = self.yaml()
        self.keys("the file", found, KEYS, {"memory", "chip", "assumed_routing"})
        title = self.title(found["title"])
        spiking, bits = found["spiking"], found["bits"]
        self.keys("spiking", spiking, {"execution", *SPIKING}, {*SPIKING_TOO, "hops"})
        if spiking["execution"] not in EXECUTIONS:
            self.refuse(f"spiking.execution={spiking['execution']!r} must be {' or '.join(EXECUTIONS)}")
        if ("hop" in spiking) != ("hops" in spiking):
            self.refuse(
                "give both spiking.hop, the energy from tile to tile, and spiking.hops, their number, or neither"
            )
        self.keys("bits", bits, set(BITS))
        for key in BITS:
            self.whole(f"bits.{key}", bits[key])
        assumptions = self.sentences("assumptions", found["assumptions"])
        mac, mac_int8, dense_title = self._dense(found["dense"], title)
        chip = self._chip(found.get("chip"))
        return Profile(
            name=self.path.stem,
            title=title,
            bits=Bits(**bits),
            execution=spiking["execution"],
            synaptic_operation=self.constant("spiking.synaptic_operation", spiking["synaptic_operation"]),
            neuron_update=self.constant("spiking.neuron_update", spiking["neuron_update"]),
            **{key: self.constant(f"spiking.{key}", spiking[key]) for key in SPIKING_TOO if key in spiking},
            hops=self.number("spiking.hops", spiking.get("hops", 0)),
            mac=mac,
            mac_int8=mac_int8,
            dense_title=dense_title,
            memory=self._memory(found.get("memory", [])),
            assumptions=assumptions,
            chip=chip,
            chip_energy=None if chip is None else load_chip(chip).energy,
            assumed_routing=self.sentences("assumed_routing", found.get("assumed_routing", [])),
        )

    def _chip(self, chip: Any) -> str | None:
        if chip is None or chip in chip_names():
            return chip
        if not isinstance(chip, str) or not (self.path.parent / chip).is_file():
            self.refuse(
                f"chip={chip!r} must be a bundled chip ({', '.join(chip_names())}) or a file next to the profile"
            )
        return str(self.path.parent / chip)

    def _dense(self, dense: Any, title: str) -> tuple[Constant, Constant, str]:
        if isinstance(dense, dict) and set(dense) == {"profile"}:
            other = dense["profile"]
            if other not in profile_names(every=True):
                self.refuse(
                    f"dense.profile={other!r} must be a bundled profile, one of {', '.join(profile_names(every=True))}"
                )
            partner = load_profile(other)
            return partner.mac, partner.mac_int8, partner.title
        self.keys("dense", dense, set(DENSE))
        return self.constant("dense.mac", dense["mac"]), self.constant("dense.mac_int8", dense["mac_int8"]), title

    def _memory(self, levels: Any) -> tuple[Level, ...]:
        if not isinstance(levels, list):
            self.refuse(f"memory={levels!r} must be a list of levels, smallest first")
        found: list[Level] = []
        for i, level in enumerate(levels):
            key = f"memory[{i}]"
            self.keys(key, level, set(LEVEL))
            size = level["bytes"]
            if size is not None:
                self.whole(f"{key}.bytes", size)
            if size is None and i + 1 < len(levels):
                self.refuse(f"{key}.bytes is null: only the last level may be unlimited")
            if found and size is not None and size <= (found[-1].bytes or 0):
                self.refuse(f"{key}.bytes={size!r} must be larger than the {found[-1].bytes} of the previous level")
            self.whole(f"{key}.access_bits", level["access_bits"])
            access = self.constant(f"{key}.access", level["access"])
            found.append(Level(str(level["name"]), size, level["access_bits"], access))
        if found and found[-1].bytes is not None:
            self.refuse(
                f"memory[{len(found) - 1}].bytes must be null: the last level stores everything that fits nowhere else"
            )
        return tuple(found)
