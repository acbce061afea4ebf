r"""Place a spiking graph on a chip, or say what would hold it.

The input and each layer get cores of their own, numbered from the input on. A placement is the number of the core of
each neuron, on the chip, and for each layer the table of the cores that a spike of its input reaches.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ashnets.errors import ConfigurationError
from ashnets.export.graph import GraphLayer, SpikingGraph
from ashnets.export.placement.arranging import arranged
from ashnets.export.placement.chips import Chip
from ashnets.export.placement.mapping import (
    MAPPINGS,
    Patch,
    axons_out,
    by_messages,
    check_mapping,
    held,
    linear,
    linear_neurons,
    patches,
)
from ashnets.export.placement.placed import INPUT, Placement, Population
from ashnets.export.placement.reach import Reach, reach

TRIED = 8  # patches, before smaller ones than a core can hold


def place(
    graph: SpikingGraph, chip: Chip, mapping: str = "best", spikes: Sequence[np.ndarray] | None = None
) -> Placement:
    """Place a graph on a chip.

    Args:
        mapping: ``best``, ``spatial`` or ``linear``; see :mod:`ashnets.export.placement.mapping`.
        spikes: for ``best``: spikes of each neuron of the input and of each layer but the last, (C, H, W) each, in any
            unit; by default all neurons fire equally often.

    Raises:
        ConfigurationError: an unknown mapping, or a graph that does not fit; the message says what would fit.
    """
    check_mapping(mapping)
    found = place_on_any(graph, chip, mapping, spikes)
    if found.cores > chip.cores:
        raise ConfigurationError(
            f"{graph.name} needs {found.cores:,} cores of {chip.title}, which has {chip.cores:,} (mapping {mapping}): "
            f"{_what_fits(graph, chip, mapping, found)}"
        )
    if mapping == "best":
        found = arranged(found, _places(graph, spikes))
    return found


def place_on_any(
    graph: SpikingGraph, chip: Chip, mapping: str, spikes: Sequence[np.ndarray] | None = None
) -> Placement:
    """The same on as many such cores as it takes, in order: on a mesh with more columns where the chip is too small.

    Raises:
        ConfigurationError: a core cannot hold one neuron of a layer with its synapses and axons.
    """
    layers = graph.layers
    shapes = [graph.input_shape, *(layer.output_shape for layer in layers)]
    placed: list[tuple[np.ndarray, str]] = []
    reaches: list[Reach] = []
    for i in reversed(range(len(shapes))):  # from the last layer on: what a core sends depends on the next layer
        layer = layers[i - 1] if i else None
        after = reaches[0] if reaches else None
        if mapping == "linear":
            cores, words = _linear(shapes[i], layer, after, chip)
        else:
            traffic = _places(graph, spikes)[i - 1] if i and mapping == "best" else None
            cores, words = _spatial(shapes[i], layer, after, chip, traffic)
        placed.insert(0, (cores, words))
        if layer is not None:
            reaches.insert(0, reach(layer, cores))
    populations, first = [], 0
    for i, (cores, words) in enumerate(placed):
        number = int(cores.max()) + 1
        kept = held(layers[i - 1], cores, reaches[i - 1], chip) if i else None
        name = layers[i - 1].name if i else INPUT
        populations.append(Population(name, cores, np.arange(first, first + number), words, kept))
        first += number
    per_column = chip.rows * chip.cores_per_tile
    wide = replace(chip, columns=max(chip.columns, -(-first // per_column)))
    return Placement(graph.name, wide if first > chip.cores else chip, mapping, tuple(populations), tuple(reaches))


def _linear(
    shape: tuple[int, int, int], layer: GraphLayer | None, after: Reach | None, chip: Chip
) -> tuple[np.ndarray, str]:
    if layer is None:
        return linear(shape, chip.neurons), f"{chip.neurons} in C, H, W order"
    neurons = linear_neurons(layer, chip)
    cores = linear(shape, neurons)
    while neurons > 1 and not _sendable(cores, after, chip):
        neurons //= 2
        cores = linear(shape, neurons)
    _check_sendable(layer, cores, after, chip)
    return cores, f"{neurons} in C, H, W order"


def _spatial(
    shape: tuple[int, int, int],
    layer: GraphLayer | None,
    after: Reach | None,
    chip: Chip,
    traffic: np.ndarray | None,
) -> tuple[np.ndarray, str]:
    choice: Any = patches(shape, chip, layer)
    if layer is not None and traffic is not None:
        choice = by_messages(shape, layer, traffic, choice)
    patch, cores = Patch(1, 1, 1), np.zeros(0, np.int64)
    for patch in itertools.islice(choice, TRIED):
        cores = patch.cores(shape)
        if layer is None or after is None or _sendable(cores, after, chip):
            return cores, str(patch)
    while patch != Patch(1, 1, 1):  # smaller patches than full ones
        patch = (
            Patch(patch.channels, -(-patch.rows // 2), -(-patch.columns // 2))
            if patch.rows * patch.columns > 1
            else Patch(-(-patch.channels // 2), 1, 1)
        )
        cores = patch.cores(shape)
        if _sendable(cores, after, chip):
            break
    _check_sendable(layer, cores, after, chip)
    return cores, str(patch)


def _sendable(cores: np.ndarray, after: Reach | None, chip: Chip) -> bool:
    return after is None or chip.axons_out is None or int(axons_out(cores, after).max()) <= chip.axons_out


def _check_sendable(layer: GraphLayer | None, cores: np.ndarray, after: Reach | None, chip: Chip) -> None:
    if not _sendable(cores, after, chip):
        assert after is not None and layer is not None
        raise ConfigurationError(
            f"{layer.name}: one neuron reaches {int(after.targets.max()):,} cores, but a core of {chip.title} has "
            f"{chip.axons_out:,} axons out: use fewer concepts or channels, or another chip (--chip)"
        )


def _places(graph: SpikingGraph, spikes: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """(H, W) for each layer: spikes at each place of its input."""
    if spikes is None:
        return [np.full(layer.input_shape[1:], float(layer.input_shape[0])) for layer in graph.layers]
    return [np.asarray(one, dtype=float).sum(0) for one in spikes]


def _what_fits(graph: SpikingGraph, chip: Chip, mapping: str, found: Placement) -> str:
    for other in MAPPINGS:
        if other != mapping:
            try:
                cores = place_on_any(graph, chip, other).cores
            except ConfigurationError:
                continue
            if cores <= chip.cores:
                return f"--mapping {other} needs {cores:,} and fits"
    counted = ", ".join(f"{one.name} {len(one.slots):,}" for one in found.populations)
    return (
        f"{counted}. A chip with {found.cores:,} such cores would hold it ({found.cores / chip.cores:.1f} times this "
        "one): describe it in a file (--chip), or take a model with smaller images, fewer channels or fewer concepts"
    )
