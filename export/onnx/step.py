r"""The spiking graph as an ONNX graph of one step; the membranes are inputs and outputs.

    inputs   spikes (B, C, H, W)        v_<layer> (B, C, h, w), one for each layer, zeros in the reset state
    outputs  <last layer> (B, C, h, w)  v_<layer>_next
    on request   spikes_<layer> of every other layer, count_<layer> (B,), whole numbers

The caller runs the loop over T and keeps the state, so one file serves streams, batches and groups. B is dynamic.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ashnets.export.graph import SpikingGraph
from ashnets.export.onnx.parts import EXTERNAL_ABOVE, Parts, require, save

if TYPE_CHECKING:
    import onnx

STEP = "ashnets-onnx-step/3"


def write_onnx_step(
    graph: SpikingGraph,
    path: str | os.PathLike,
    layer_spikes: bool = False,
    layer_counts: bool = False,
    external_above: int = EXTERNAL_ABOVE,
) -> Path:
    """Write the step graph, float or integer as ``graph`` is.

    Args:
        graph: see :func:`ashnets.export.graph.from_model`.
        path: of the file, which appears when it is complete.
        layer_spikes: add outputs with the spikes of the layers before the last one.
        layer_counts: add outputs with the number of neurons of each layer that fired.
        external_above: larger weights, in bytes, are stored in a separate file, ``path.data``.

    Returns:
        The path.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    library = require("onnx")
    return save(library, _build(library, graph, layer_spikes, layer_counts), path, external_above)


def _build(library: ModuleType, graph: SpikingGraph, layer_spikes: bool, layer_counts: bool) -> onnx.ModelProto:
    parts = Parts(library, graph)
    parts.inputs.append(parts.value("spikes", ["B", *graph.input_shape]))
    states, spikes, counts = [], [], []
    if layer_counts:
        parts.constant("places", np.array([1, 2, 3]))
    x = "spikes"
    for layer in graph.layers:
        n, fired = layer.name, parts.fired(layer)
        shape: list[int | str | None] = ["B", *layer.output_shape]
        parts.neuron_constants(layer)
        parts.nodes.append(parts.current(layer, x, f"{n}.current"))
        parts.nodes += parts.neuron(layer, f"{n}.current", f"v_{n}", fired, f"v_{n}_next")
        parts.inputs.append(parts.value(f"v_{n}", shape))
        states.append(parts.value(f"v_{n}_next", shape))
        spikes.append(parts.value(fired, shape))
        if layer_counts:
            parts.nodes += [
                parts.node("ReduceSum", [fired, "places"], [f"{n}.sum_fired"], f"{n}/count", keepdims=0),
                parts.node("Cast", [f"{n}.sum_fired"], [f"count_{n}"], f"{n}/whole", to=parts.whole),
            ]
            counts.append(parts.value(f"count_{n}", ["B"], parts.whole))
        x = fired
    parts.outputs = [spikes[-1], *states, *(spikes[:-1] if layer_spikes else []), *counts]
    return parts.model(STEP)
