r"""Which cores a spike reaches, as tables over the places of a layer's input.

A spike at the input place (y, x) of a channel goes to every core that holds at least one neuron which it excites: one
message to each. All channels of a convolution's group reach the same cores. So one table of (group, place, core) and
the number of synapses behind it describes a layer completely, without an object for each synapse.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ashnets.export.graph import GraphLayer
from ashnets.export.placement.chips import Chip


@dataclass(frozen=True)
class Reach:
    """The cores that the input of a layer reaches: entries sorted by group, place and core.

    Attributes:
        shape: (groups, H, W) of the input.
        channels: input channels of a group.
        group, place, core, synapses: one number for each entry: y·W + x of the place, the number of the core among the
            layer's own, and the synapses that one spike of one channel at this place has in that core.
        cores: cores of the layer.
    """

    shape: tuple[int, int, int]
    channels: int
    group: np.ndarray
    place: np.ndarray
    core: np.ndarray
    synapses: np.ndarray
    cores: int

    @cached_property
    def row(self) -> np.ndarray:
        """group·H·W + place of each entry: its row in a table of groups and places."""
        return self.group * (self.shape[1] * self.shape[2]) + self.place

    @cached_property
    def targets(self) -> np.ndarray:
        """Cores that a spike reaches, (groups, H, W)."""
        return np.bincount(self.row, minlength=self._rows).reshape(self.shape)

    @cached_property
    def fan_out(self) -> np.ndarray:
        """Synapses of a spike, (groups, H, W)."""
        return self._summed(self.synapses).reshape(self.shape)

    @cached_property
    def axons_in(self) -> np.ndarray:
        """Source neurons that reach each core, (cores,)."""
        return np.bincount(self.core, minlength=self.cores) * self.channels

    @property
    def _rows(self) -> int:
        return int(np.prod(self.shape))

    def _summed(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.row, weights=values, minlength=self._rows).astype(np.int64)

    def of_channels(self, table: np.ndarray) -> np.ndarray:
        """A table (groups, H, W) for every input channel: (C, H, W)."""
        return np.repeat(table, self.channels, axis=0)

    def hops(self, chip: Chip, sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hops of one spike of each input neuron, all its messages together.

        Args:
            chip: gives the tile of a core.
            sources: (C, H, W), the chip's core number of each input neuron.
            targets: (cores,), the chip's core number of each core of the layer.

        Returns:
            Hops east or west and hops north or south, (C, H, W) each.
        """
        found = []
        end = np.cumsum(self.targets.ravel())
        last = np.broadcast_to(self.of_channels(end.reshape(self.shape)), sources.shape)
        first = last - self.of_channels(self.targets)  # entries of a neuron's place: first ≤ entry < last
        place = self.of_channels(np.arange(self._rows).reshape(self.shape))
        for axis, length in enumerate((chip.columns, chip.rows)):
            key = np.sort(self.row * length + chip.tile(targets)[axis][self.core], kind="stable")
            summed = np.concatenate([[0], np.cumsum(key % length)])
            own = chip.tile(sources)[axis]
            middle = np.searchsorted(key, place * length + own)  # entries before it lie west (or north) of the neuron
            west = own * (middle - first) - (summed[middle] - summed[first])
            found.append(west + summed[last] - summed[middle] - own * (last - middle))
        return found[0], found[1]


def reach(layer: GraphLayer, cores: np.ndarray) -> Reach:
    """The table of a layer.

    Args:
        layer: a convolution.
        cores: (O, h, w), the number of each neuron's core among the layer's own, 0, 1, ….
    """
    groups, number = layer.groups, int(cores.max()) + 1
    channels, height, width = layer.input_shape
    places_out, places_in = pairs(layer)
    found = []
    of_group = cores.reshape(groups, -1, cores.shape[1] * cores.shape[2])  # (groups, O/groups, h·w)
    for g in range(groups):
        held, many = np.unique(np.arange(of_group.shape[2]) * number + of_group[g], return_counts=True)
        place, core = held // number, held % number  # a core, and its neurons at a place, sorted by place
        first = np.searchsorted(place, np.arange(of_group.shape[2] + 1))
        lengths = np.diff(first)[places_out]
        entry = np.repeat(first[places_out] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        key, which = np.unique(np.repeat(places_in, lengths) * number + core[entry], return_inverse=True)
        synapses = np.bincount(which, weights=many[entry], minlength=len(key)).astype(np.int64)
        found.append((np.full(len(key), g), key // number, key % number, synapses))
    group, place, core, synapses = (np.concatenate(part) for part in zip(*found, strict=True))
    return Reach((groups, height, width), channels // groups, group, place, core, synapses, number)


def pairs(layer: GraphLayer) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of an output place and an input place that a tap of the kernel joins, as y·w + x and Y·W + X."""
    height, width = layer.input_shape[1:]
    joined = []
    for axis, size in enumerate((height, width)):
        o, k = np.meshgrid(
            np.arange(layer.output_shape[1 + axis]), np.arange(layer.weight.shape[2 + axis]), indexing="ij"
        )
        i = o * layer.stride[axis] - layer.padding[axis] + k * layer.dilation[axis]
        inside = (i >= 0) & (i < size)
        joined.append((o[inside], i[inside]))
    (rows_out, rows_in), (columns_out, columns_in) = joined
    place_out = rows_out[:, None] * layer.output_shape[2] + columns_out
    place_in = rows_in[:, None] * width + columns_in
    return place_out.ravel(), place_in.ravel()


def taps(layer: GraphLayer) -> np.ndarray:
    """Taps of the kernel on the image, without those on padding, at each output place: (h, w)."""
    out, _ = pairs(layer)
    return np.bincount(out, minlength=layer.output_shape[1] * layer.output_shape[2]).reshape(layer.output_shape[1:])
