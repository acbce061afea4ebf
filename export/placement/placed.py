"""A spiking graph on a chip: the cores of its input and of each layer, and the cores that a spike reaches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ashnets.export.placement.chips import Chip
from ashnets.export.placement.mapping import Held, axons_out
from ashnets.export.placement.reach import Reach

INPUT = "input"


@dataclass(frozen=True)
class Population:
    """The neurons of the input or of a layer on their cores.

    Attributes:
        name: ``input``, or that of the layer.
        cores: (C, H, W), the number of each neuron's core among the population's own.
        slots: (cores,), the chip's number of each of these cores.
        patch: what a core holds, in words.
        held: memory and axons of the cores; None for the input.
    """

    name: str
    cores: np.ndarray
    slots: np.ndarray
    patch: str
    held: Held | None = None

    @cached_property
    def on_chip(self) -> np.ndarray:
        """(C, H, W): the chip's core number of each neuron."""
        return self.slots[self.cores]

    @cached_property
    def neurons(self) -> np.ndarray:
        """(cores,): neurons of each core."""
        return np.bincount(self.cores.ravel(), minlength=len(self.slots))


@dataclass(frozen=True)
class Placement:
    """A spiking graph on a chip.

    Attributes:
        graph: its name.
        chip: the chip.
        mapping: ``spatial``, ``linear`` or ``best``.
        populations: the input, then the layers.
        reaches: for each layer, the cores that its input reaches.
    """

    graph: str
    chip: Chip
    mapping: str
    populations: tuple[Population, ...]
    reaches: tuple[Reach, ...]

    @property
    def cores(self) -> int:
        """Cores in use, those of the input included."""
        return sum(len(one.slots) for one in self.populations)

    @cached_property
    def tiles(self) -> int:
        """Tiles in use."""
        slots = np.concatenate([one.slots for one in self.populations])
        return len(np.unique(slots // self.chip.cores_per_tile))

    @cached_property
    def axons_out(self) -> tuple[np.ndarray, ...]:
        """(cores,) of the input and of every layer but the last."""
        return tuple(axons_out(one.cores, r) for one, r in zip(self.populations, self.reaches, strict=False))

    @cached_property
    def hops(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """For each layer: hops of one spike of each input neuron, east or west and north or south, (C, H, W) each."""
        return tuple(
            r.hops(self.chip, source.on_chip, target.slots)
            for r, source, target in zip(self.reaches, self.populations, self.populations[1:], strict=False)
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: cores, memory and axons of each population, and the population of each core of the mesh."""
        mesh: list[int | None] = [None] * self.chip.cores
        for i, one in enumerate(self.populations):
            for slot in one.slots.tolist():
                mesh[slot] = i
        return {
            "chip": self.chip.name,
            "title": self.chip.title,
            "mapping": self.mapping,
            "cores": self.cores,
            "cores_of_chip": self.chip.cores,
            "tiles": self.tiles,
            "columns": self.chip.columns,
            "rows": self.chip.rows,
            "cores_per_tile": self.chip.cores_per_tile,
            "limits": {
                "neurons": self.chip.neurons,
                "synapse_bits": self.chip.synapse_bits,
                "axons_in": self.chip.axons_in,
                "axons_out": self.chip.axons_out,
            },
            "shared_weights": self.chip.shared_weights,
            "populations": [self._population(i) for i in range(len(self.populations))],
            "mesh": mesh,
            "figures": self.chip.figures(),
            "assumptions": list(self.chip.assumptions),
        }

    def _population(self, i: int) -> dict[str, Any]:
        one = self.populations[i]
        last = i + 1 == len(self.populations)
        return {
            "name": one.name,
            "cores": len(one.slots),
            "patch": one.patch,
            "neurons": int(one.neurons.sum()),
            "neurons_of_a_core": int(one.neurons.max()),
            "synapse_bits_shared": int(one.held.shared_bits.max()) if one.held else 0,
            "synapse_bits_unshared": int(one.held.bits.max()) if one.held else 0,
            "axons_in": int(one.held.axons_in.max()) if one.held else 0,
            "axons_out": 0 if last else int(self.axons_out[i].max()),
        }
