r"""Counting what a forward pass does: spikes, synaptic operations, membrane updates, and the MACs beside them.

A synaptic operation is one weight added to one membrane because one spike arrived. An input spike at (c, y, x) reaches
every output position whose kernel covers it: at most kH·kW of them, fewer at the border and under a stride, times
O/groups channels. Rate × dense MACs, the usual shortcut, errs by several per cent, spikes × O·k² by a factor of two.
A weight that happens to be zero counts: hardware reads it.

Dense MACs are those of one pass of an ordinary network of the same shape, without the taps that fall on padding and
with them; tools differ here (NeuroBench leaves them out, spikingjelly counts them).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ashnets.export.graph import SpikingGraph, SpikingLayer, State


@dataclass(frozen=True)
class LayerCounts:
    """One spiking layer over all pictures and steps that were run.

    Attributes:
        name: of the layer.
        neurons: C·h·w.
        input_spikes: spikes that arrived.
        spikes: spikes that the layer fired.
        synaptic_operations: see the module's head.
        membrane_updates: neurons × steps × pictures; every membrane leaks at every step.
        dense_macs: of one dense pass of one picture, taps on padding left out.
        dense_macs_padded: the same with them.
    """

    name: str
    neurons: int
    input_spikes: int
    spikes: int
    synaptic_operations: int
    membrane_updates: int
    dense_macs: int
    dense_macs_padded: int

    @property
    def rate(self) -> float:
        """Spikes for each neuron and step."""
        return self.spikes / self.membrane_updates


@dataclass(frozen=True)
class Counts:
    """A spiking graph over ``pictures`` pictures of ``steps`` steps each."""

    model: str
    pictures: int
    steps: int
    layers: tuple[LayerCounts, ...]

    @property
    def spikes(self) -> int:
        """Spikes fired, all layers, all pictures."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def synaptic_operations(self) -> int:
        """Of all layers and pictures."""
        return sum(layer.synaptic_operations for layer in self.layers)

    @property
    def membrane_updates(self) -> int:
        """Of all layers and pictures."""
        return sum(layer.membrane_updates for layer in self.layers)

    @property
    def dense_macs(self) -> int:
        """Of one dense pass of one picture, taps on padding left out."""
        return sum(layer.dense_macs for layer in self.layers)

    @property
    def dense_macs_padded(self) -> int:
        """Of one dense pass of one picture, with taps on padding."""
        return sum(layer.dense_macs_padded for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: totals, then each layer with its firing rate."""
        totals = ("spikes", "synaptic_operations", "membrane_updates", "dense_macs", "dense_macs_padded")
        return {
            "model": self.model,
            "pictures": self.pictures,
            "steps": self.steps,
            **{name: getattr(self, name) for name in totals},
            "layers": [{**asdict(layer), "rate": layer.rate} for layer in self.layers],
        }


def count(graph: SpikingGraph, spikes: torch.Tensor, state: State | None = None) -> Counts:
    """Run the graph and count, exactly.

    Args:
        graph: see :func:`ashnets.export.graph.from_model`.
        spikes: (T', B, C, H, W), 0 and 1: B pictures.
        state: membranes to start from; ``None`` starts at rest.
    """
    outputs, _ = graph.run(spikes, state)
    steps, pictures = spikes.shape[:2]
    layers = []
    arriving = spikes
    for layer in graph.layers:
        fired = outputs[layer.name]
        # Float64 holds these integers exactly, up to 2⁵³.
        arrivals = arriving.flatten(0, 1).sum(0, dtype=torch.float64)  # (C, H, W)
        reach = fan_out(layer)
        layers.append(
            LayerCounts(
                name=layer.name,
                neurons=layer.neurons,
                input_spikes=int(arrivals.sum()),
                spikes=int(fired.sum(dtype=torch.float64)),
                synaptic_operations=int((arrivals * reach).sum()),
                membrane_updates=layer.neurons * steps * pictures,
                dense_macs=int(reach.sum()) * layer.input_shape[0],
                dense_macs_padded=layer.neurons * math.prod(layer.weight.shape[1:]),
            )
        )
        arriving = fired
    return Counts(model=graph.name, pictures=pictures, steps=steps, layers=tuple(layers))


def fan_out(layer: SpikingLayer) -> torch.Tensor:
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


@torch.no_grad()
def dense_macs(
    model: nn.Module, pixel_values: torch.Tensor, input_ids: torch.Tensor | None = None, **options: Any
) -> dict[str, int]:
    """Multiply-accumulates of the artificial parts for one picture, with a text where one is given.

    Args:
        model: ``AshNetsModel`` or a head on it.
        pixel_values: (B, 3, H, W).
        input_ids: (B, L); without it the transformer sees visual tokens alone.
        options: further arguments of the model's forward.

    Returns:
        MACs a picture of ``concrete_encoder``, ``collector``, ``summary_ratio`` and ``transformer``, as far as the
        model has them. Products of matrices and convolutions, attention's included and padding's taps too; element-wise
        work, normalisation and softmax are left out. The collector is counted dense, although most of its inputs
        are zero.
    """
    base = getattr(model, "ashnets", model)
    training = base.training
    base.eval()
    counter = FlopCounterMode(
        display=False,
        # torch's own table lacks the CPU's fused attention.
        custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops},
    )
    try:
        with counter:
            base(pixel_values=pixel_values, input_ids=input_ids, **options)
    finally:
        base.train(training)
    found: dict[str, int] = {}
    for path, operations in counter.get_flop_counts().items():
        part = path.rpartition(".")[2]
        if part in ("concrete_encoder", "collector", "summary_ratio", "transformer"):
            found[part] = sum(operations.values()) // 2 // len(pixel_values)  # a MAC is two FLOPs
    return found


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)
