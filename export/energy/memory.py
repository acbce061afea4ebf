r"""Memory traffic as an interval: from moving every value once to one access for every operation.

    spiking, high    S·(E_w + 2·E_v) + 2·U·E_v + events      each synaptic operation reads a weight, reads and writes v
    spiking, low     min(S, W)·E_w + 2·U·E_v + events        each weight in use is read once an image
    dense, high      M·(E_w + E_x) + Y·E_y                   each MAC reads a weight and an activation
    dense, low       W·E_w + X·E_x + Y·E_y                   each value is moved once

S synaptic operations, U membrane updates, M MACs, W weights, X inputs, Y outputs; an event is written where a neuron
fires and read where it arrives. E is the energy of a value in the smallest memory that can store its whole tensor, in
proportion to its bits, as in E. Lemaire et al. (An analytical estimation of spiking neural networks energy efficiency,
ICONIP 2022). The high end is a count like theirs, without any reuse. The low end needs buffers that are not counted.
The position of a real design between them depends on its dataflow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ashnets.export.counting import Counts, LayerCounts
from ashnets.export.energy.profiles import Bits, Level
from ashnets.zoo.macs import DenseLayer


@dataclass(frozen=True)
class Interval:
    """Energy of memory traffic between two bounds, in pJ an image."""

    low: float
    high: float

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)


NONE = Interval(0.0, 0.0)
INT8 = 8


def value_energy(levels: tuple[Level, ...], bits: int, values: int) -> float:
    """pJ to move one value of ``bits`` bits that belongs to a tensor of ``values`` values."""
    size = values * bits / 8
    level = next(level for level in levels if level.bytes is None or level.bytes >= size)
    return level.access.picojoules / level.access_bits * bits


def spiking_traffic(counts: Counts, levels: tuple[Level, ...], bits: Bits) -> Interval:
    """Memory traffic of a spiking graph, mean over the counted images."""
    if not levels:
        return NONE
    return sum((_spiking_layer(layer, counts.images, levels, bits) for layer in counts.layers), NONE)


def dense_traffic(layers: Iterable[DenseLayer], levels: tuple[Level, ...], weight: int, activation: int) -> Interval:
    """Memory traffic of one forward pass of an ordinary network, with the bits of its weights and activations."""
    if not levels:
        return NONE
    return sum((_dense_layer(layer, levels, weight, activation) for layer in layers), NONE)


def _spiking_layer(layer: LayerCounts, images: int, levels: tuple[Level, ...], bits: Bits) -> Interval:
    weight = value_energy(levels, bits.weight, layer.weights)
    membrane = value_energy(levels, bits.state, layer.neurons)
    operations, updates = layer.synaptic_operations / images, layer.membrane_updates / images
    events = layer.input_spikes / images * value_energy(levels, bits.event, layer.input_neurons)
    events += layer.spikes / images * value_energy(levels, bits.event, layer.neurons)
    always = 2 * updates * membrane + events
    return Interval(
        low=min(operations, layer.weights) * weight + always, high=operations * (weight + 2 * membrane) + always
    )


def _dense_layer(layer: DenseLayer, levels: tuple[Level, ...], weight: int, activation: int) -> Interval:
    read = value_energy(levels, activation, layer.inputs)
    # a layer without weights: both factors are activations
    factor = value_energy(levels, weight, layer.weights) if layer.weights else read
    written = layer.outputs * value_energy(levels, activation, layer.outputs)
    return Interval(
        low=layer.weights * factor + layer.inputs * read + written, high=layer.macs * (factor + read) + written
    )
