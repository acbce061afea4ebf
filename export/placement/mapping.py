r"""Neurons to cores, layer by layer: three mappings.

    spatial    a patch of places with all its channels in a core; channels are split only where a core cannot hold them
    linear     neurons in C, H, W order fill one core after the other
    best       as spatial, with the patches that need the fewest messages, and cores exchanged to save hops

Within the limits of a core, ``spatial`` takes the patches that need the fewest cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ashnets.errors import ConfigurationError
from ashnets.export.graph import GraphLayer
from ashnets.export.placement.chips import Chip
from ashnets.export.placement.reach import Reach, taps

MAPPINGS = ("best", "spatial", "linear")


def check_mapping(mapping: str) -> None:
    """Raises ConfigurationError for an unknown mapping."""
    if mapping not in MAPPINGS:
        raise ConfigurationError(f"mapping={mapping!r} must be one of {', '.join(MAPPINGS)}")


@dataclass(frozen=True)
class Patch:
    """A block of a layer's neurons that shares a core: ``channels`` × ``rows`` × ``columns``, less at the edges."""

    channels: int
    rows: int
    columns: int

    def blocks(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Blocks along channels, rows and columns."""
        sizes = (self.channels, self.rows, self.columns)
        return tuple(-(-n // size) for n, size in zip(shape, sizes, strict=True))  # type: ignore[return-value]

    def cores(self, shape: tuple[int, int, int]) -> np.ndarray:
        """(C, H, W): the core of each neuron, 0, 1, …; blocks of channels of a patch lie side by side."""
        channels, rows, columns = (
            np.arange(n) // size for n, size in zip(shape, (self.channels, self.rows, self.columns), strict=True)
        )
        blocks = self.blocks(shape)
        at = rows[:, None] * blocks[2] + columns  # (H, W)
        return at * blocks[0] + channels[:, None, None]

    def __str__(self) -> str:
        return f"{self.channels} × {self.rows} × {self.columns}"


def linear(shape: tuple[int, int, int], neurons: int) -> np.ndarray:
    """(C, H, W): the core of each neuron in C, H, W order, ``neurons`` in each core."""
    return (np.arange(math.prod(shape)) // neurons).reshape(shape)


def patches(shape: tuple[int, int, int], chip: Chip, layer: GraphLayer | None) -> list[Patch]:
    """Patches that a core can hold, with as few blocks of channels as possible: for each number of rows the widest.

    Args:
        shape: (C, H, W) of the neurons.
        layer: their layer; None for the input, which has no synapses.

    Raises:
        ConfigurationError: a core cannot hold a single neuron.
    """
    channels, height, width = shape
    for blocks in range(1, channels + 1):
        held = -(-channels // blocks)
        if blocks > 1 and held == -(-channels // (blocks - 1)):
            continue
        found = []
        for rows in range(1, height + 1):
            fitting = [c for c in range(1, width + 1) if _fits(held, rows, c, chip, layer)]
            if not fitting:
                break
            # evenly sized: no narrow rest at the edge
            even = -(-width // -(-width // fitting[-1]))
            found.append(Patch(held, -(-height // -(-height // rows)), even))
        if found:
            return sorted(set(found), key=lambda p: (math.prod(p.blocks(shape)), abs(p.rows - p.columns), p.rows))
    raise _too_large(chip, layer)


def _too_large(chip: Chip, layer: GraphLayer | None) -> ConfigurationError:
    assert layer is not None  # an input neuron always fits
    weights = layer.weight[0].numel()
    bits, axons = (f"{limit:,}" if limit else "any number of" for limit in (chip.synapse_bits, chip.axons_in))
    return ConfigurationError(
        f"{layer.name}: one neuron needs {weights:,} weights of {chip.weight_bits} bits and {weights:,} axons, but a "
        f"core of {chip.title} has {bits} bits and {axons} axons in: use fewer channels, or another chip (--chip)"
    )


def _fits(channels: int, rows: int, columns: int, chip: Chip, layer: GraphLayer | None) -> bool:
    neurons = channels * rows * columns
    return neurons <= chip.neurons and (layer is None or _holds(channels, rows, columns, neurons, chip, layer))


def _holds(channels: int, rows: int, columns: int, neurons: int, chip: Chip, layer: GraphLayer) -> bool:
    """Whether a core has memory and axons for some neurons in a block of channels, rows and columns."""
    inputs, *kernel = layer.weight.shape[1:]
    weights = inputs * math.prod(kernel) * (channels if chip.shared_weights else neurons)
    if chip.synapse_bits is not None and weights * chip.weight_bits > chip.synapse_bits:
        return False
    if chip.axons_in is None:
        return True
    places = math.prod(
        min(size, (n - 1) * stride + (k - 1) * dilation + 1)
        for n, k, stride, dilation, size in zip(
            (rows, columns), kernel, layer.stride, layer.dilation, layer.input_shape[1:], strict=True
        )
    )
    groups = min(layer.groups, -(-channels // (layer.weight.shape[0] // layer.groups)) + 1)  # that the channels touch
    return inputs * groups * places <= chip.axons_in


@dataclass(frozen=True)
class Held:
    """What a core of a layer holds, the largest over its cores where one number stands.

    Attributes:
        shared_bits, bits: (cores,), synapse memory with each kernel stored once, and with a weight for each synapse.
        axons_in: (cores,).
    """

    shared_bits: np.ndarray
    bits: np.ndarray
    axons_in: np.ndarray


def held(layer: GraphLayer, cores: np.ndarray, reached: Reach, chip: Chip) -> Held:
    """Memory and axons of each core of a layer."""
    number = reached.cores
    inputs, *kernel = layer.weight.shape[1:]
    fan_in = np.broadcast_to(taps(layer) * inputs, cores.shape)
    synapses = np.bincount(cores.ravel(), weights=fan_in.ravel(), minlength=number)
    channel = np.arange(cores.shape[0])[:, None, None]
    channels = np.bincount(np.unique(cores.astype(np.int64) * cores.shape[0] + channel) // cores.shape[0])
    return Held(
        shared_bits=channels * (inputs * math.prod(kernel) * chip.weight_bits),
        bits=(synapses * chip.weight_bits).astype(np.int64),
        axons_in=reached.axons_in,
    )


def linear_neurons(layer: GraphLayer, chip: Chip) -> int:
    """Neurons of a core in C, H, W order: as many as it has, or half, a quarter, … of them, so that its limits hold.

    Raises:
        ConfigurationError: a core cannot hold a single neuron.
    """
    height, width = layer.output_shape[1:]
    neurons = chip.neurons
    while neurons:
        # the channels and rows that so many neurons in a row can touch at most
        channels, rows = (
            min(most, (neurons - 2) // of_one + 2)
            for most, of_one in ((layer.output_shape[0], height * width), (height, width))
        )
        if _holds(channels, rows, min(width, neurons), neurons, chip, layer):
            return neurons
        neurons //= 2
    raise _too_large(chip, layer)


def axons_out(cores: np.ndarray, next_layer: Reach) -> np.ndarray:
    """(cores,): for each core of a layer, the cores that its neurons reach, summed over its neurons."""
    targets = next_layer.of_channels(next_layer.targets)
    return np.bincount(cores.ravel(), weights=targets.ravel()).astype(np.int64)


def by_messages(
    shape: tuple[int, int, int], layer: GraphLayer, spikes: np.ndarray, found: list[Patch]
) -> Iterator[Patch]:
    """Patches by the messages that they need, fewest first.

    Args:
        shape: (O, h, w) of the layer.
        spikes: (H, W), spikes at each place of its input.
        found: the patches to sort.
    """

    def messages(patch: Patch) -> tuple[float, int]:
        blocks = patch.blocks(shape)
        rows, columns = (
            _blocks_reached(layer, axis, size, n)
            for axis, (size, n) in enumerate(zip((patch.rows, patch.columns), blocks[1:], strict=True))
        )
        return float(rows @ spikes @ columns) * blocks[0], math.prod(blocks)

    yield from sorted(found, key=messages)


def _blocks_reached(layer: GraphLayer, axis: int, size: int, blocks: int) -> np.ndarray:
    """For each row (or column) of the input, the blocks of output rows that it reaches."""
    length, out = layer.input_shape[1 + axis], layer.output_shape[1 + axis]
    reached = np.zeros((length, blocks), dtype=bool)
    for tap in range(layer.weight.shape[2 + axis]):
        o = np.arange(out)
        i = o * layer.stride[axis] - layer.padding[axis] + tap * layer.dilation[axis]
        inside = (i >= 0) & (i < length)
        reached[i[inside], o[inside] // size] = True
    return reached.sum(1).astype(float)
