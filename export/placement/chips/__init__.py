"""Chip files: the mesh, what a core can hold, and the energy and latency of the network; each figure with its source.

A chip is a mesh of tiles with some cores each. Core number n sits in tile n // cores_per_tile; tiles are numbered
column by column. To describe a chip of your own, copy ``loihi1.yaml``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ashnets.errors import ConfigurationError
from ashnets.export.figures import NANOSECONDS, Constant, FigureFile

FOLDER = Path(__file__).resolve().parent
DEFAULT = "loihi1"

KEYS = {"title", "mesh", "core", "energy", "latency", "assumptions"}
MESH = ("columns", "rows", "cores_per_tile")
CORE = {"neurons": ("neurons",), "weight": ("bits",)}
LIMITS = {"synapse_memory": ("bits",), "axons_in": ("axons",), "axons_out": ("axons",)}  # may be left out
ENERGY = ("message", "hop_east_west", "hop_north_south")
LATENCY = ("neuron", "spike", "message_out", "message_in", "synapse")
TIMES = tuple(NANOSECONDS)


@dataclass(frozen=True)
class Chip:
    """A chip as a mesh of cores.

    Attributes:
        name: of the file.
        title: one line for readers.
        columns, rows: tiles of the mesh.
        cores_per_tile: cores of a tile.
        neurons: of a core, at most.
        weight_bits: bits of a stored weight.
        shared_weights: a core stores a kernel once, whatever the number of positions.
        synapse_bits, axons_in, axons_out: limits of a core; None: no limit. An axon in is one source neuron that
            reaches the core; an axon out is one core that a neuron of the core reaches.
        energy: Constant of ``message``, ``hop_east_west`` and ``hop_north_south``.
        latency: Constant of ``neuron`` (an update), ``spike``, ``message_out``, ``message_in`` and ``synapse``.
        barrier: (tiles, ns): time of the barrier that ends a step, from this number of used tiles on.
        sources: source and year of the other figures by name, for JSON.
        assumptions: behind the figures.
    """

    name: str
    title: str
    columns: int
    rows: int
    cores_per_tile: int
    neurons: int
    weight_bits: int
    shared_weights: bool
    energy: dict[str, Constant]
    latency: dict[str, Constant]
    barrier: tuple[tuple[int, float], ...]
    assumptions: tuple[str, ...]
    synapse_bits: int | None = None
    axons_in: int | None = None
    axons_out: int | None = None
    sources: dict[str, Any] | None = None

    @property
    def cores(self) -> int:
        """Cores of the chip."""
        return self.columns * self.rows * self.cores_per_tile

    def tile(self, core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Column and row of the tile of each core number."""
        tile = core // self.cores_per_tile
        return tile // self.rows, tile % self.rows

    def barrier_ns(self, tiles: int) -> float:
        """Time of the barrier when so many tiles are in use."""
        return max((entry for entry in self.barrier if entry[0] <= tiles), default=(0, 0.0))[1]

    def figures(self) -> dict[str, Any]:
        """Every figure with its source, for JSON."""
        found = {f"energy of {name.replace('_', ' ')}": asdict(one) for name, one in self.energy.items()}
        found |= {f"latency of {name.replace('_', ' ')}": asdict(one) for name, one in self.latency.items()}
        return {**(self.sources or {}), **found}


def chip_names() -> list[str]:
    """Names of bundled chips."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_chip(name: str | Path) -> Chip:
    """Load a bundled chip by its name, or a file of the same form.

    Raises:
        ConfigurationError: no such chip, or a file that lacks a figure, its unit, its source or its year.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) not in chip_names():
            raise ConfigurationError(
                f"no chip {str(name)!r}: give the path of a .yaml file or one of {', '.join(chip_names())}"
            )
        path = FOLDER / f"{name}.yaml"
    return _Reader(path).chip()


class _Reader(FigureFile):
    """Reads one file and refuses anything unexpected."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "export/placement/chips/loihi1.yaml")

    def chip(self) -> Chip:
        found = self.yaml()
        self.keys("the file", found, KEYS)
        mesh, core, energy, latency = (found[key] for key in ("mesh", "core", "energy", "latency"))
        self.keys("mesh", mesh, {*MESH, "source", "year"})
        self.source("mesh", mesh)
        columns, rows, cores_per_tile = (self.whole(f"mesh.{key}", mesh[key]) for key in MESH)
        self.keys("core", core, {*CORE, "shared_weights"}, set(LIMITS))
        if not isinstance(core["shared_weights"], bool):
            self.refuse(f"core.shared_weights={core['shared_weights']!r} must be true or false")
        limits = {
            key: self.constant(f"core.{key}", core[key], units)
            for key, units in {**CORE, **LIMITS}.items()
            if key in core
        }
        for key, limit in limits.items():
            if limit.value != int(limit.value) or limit.value < 1:
                self.refuse(f"core.{key}.value={limit.value} must be a whole number, at least 1")
        self.keys("energy", energy, set(ENERGY))
        self.keys("latency", latency, {*LATENCY, "barrier"})
        whole = {key: int(limit.value) for key, limit in limits.items()}
        shape = {key: mesh[key] for key in (*MESH, "source", "year")}
        return Chip(
            name=self.path.stem,
            title=self.title(found["title"]),
            columns=columns,
            rows=rows,
            cores_per_tile=cores_per_tile,
            neurons=whole["neurons"],
            weight_bits=whole["weight"],
            shared_weights=core["shared_weights"],
            energy={key: self.constant(f"energy.{key}", energy[key]) for key in ENERGY},
            latency={key: self.constant(f"latency.{key}", latency[key], TIMES) for key in LATENCY},
            barrier=self._barrier(latency["barrier"]),
            assumptions=self.sentences("assumptions", found["assumptions"]),
            synapse_bits=whole.get("synapse_memory"),
            axons_in=whole.get("axons_in"),
            axons_out=whole.get("axons_out"),
            sources={
                "mesh": shape,
                **{f"{key.replace('_', ' ')} of a core": asdict(limit) for key, limit in limits.items()},
                "latency of barrier": {
                    **latency["barrier"],
                    "tiles": {str(tiles): time for tiles, time in latency["barrier"]["tiles"].items()},
                },
            },
        )

    def _barrier(self, entry: Any) -> tuple[tuple[int, float], ...]:
        key = "latency.barrier"
        self.keys(key, entry, {"tiles", "unit", "source", "year"})
        self.source(key, entry)
        if entry["unit"] not in TIMES:
            self.refuse(f"{key}.unit={entry['unit']!r} must be one of {', '.join(TIMES)}")
        if not isinstance(entry["tiles"], dict) or not entry["tiles"]:
            self.refuse(f"{key}.tiles={entry['tiles']!r} must give a time for each number of tiles, such as {{1: 600}}")
        scale = NANOSECONDS[entry["unit"]]
        return tuple(
            (self.whole(f"{key}.tiles", tiles), self.number(f"{key}.tiles[{tiles}]", time) * scale)
            for tiles, time in sorted(entry["tiles"].items(), key=lambda item: str(item[0]).zfill(9))
        )
