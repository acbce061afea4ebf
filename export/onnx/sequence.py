r"""The spiking graph over a whole sequence in one call: with a Scan over T, or unrolled for runtimes without loops.

    inputs   spikes (T, B, C, H, W)        v_<layer> (B, C, h, w), one for each layer, zeros in the reset state
    outputs  <last layer> (T, B, C, h, w)  v_<layer>_next
    on request   spikes_<layer> of every other layer, count_<layer> (B,), whole numbers, summed over T

A convolution does not depend on time: it runs on all T·B images at once, and only the neurons run step by step. B is
dynamic. T is dynamic with Scan; an unrolled graph has a fixed T.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ashnets.errors import ConfigurationError
from ashnets.export.graph import GraphLayer, SpikingGraph
from ashnets.export.onnx.parts import EXTERNAL_ABOVE, Parts, require, save

if TYPE_CHECKING:
    import onnx

SEQUENCE = "ashnets-onnx-sequence/2"
UNROLLED = "ashnets-onnx-unrolled/2"


def write_onnx_sequence(
    graph: SpikingGraph,
    path: str | os.PathLike,
    unrolled: int | None = None,
    layer_spikes: bool = False,
    layer_counts: bool = False,
    external_above: int = EXTERNAL_ABOVE,
) -> Path:
    """Write the sequence graph, float or integer as ``graph`` is.

    Args:
        graph: see :func:`ashnets.export.graph.from_model`.
        path: of the file, which appears when it is complete.
        unrolled: T of an unrolled graph; ``None`` writes a Scan, which takes any T.
        layer_spikes, layer_counts, external_above: as in :func:`ashnets.export.onnx.step.write_onnx_step`.

    Raises:
        ConfigurationError: ``unrolled`` below 1.
        MissingExtraError: onnx is not installed.
    """
    if unrolled is not None and unrolled < 1:
        raise ConfigurationError(f"unrolled={unrolled}: give the number of steps, at least 1")
    library = require("onnx")
    return save(library, _build(library, graph, unrolled, layer_spikes, layer_counts), path, external_above)


def _build(
    library: ModuleType, graph: SpikingGraph, unrolled: int | None, layer_spikes: bool, layer_counts: bool
) -> onnx.ModelProto:
    parts = Parts(library, graph)
    time: int | str = unrolled or "T"
    parts.inputs.append(parts.value("spikes", [time, "B", *graph.input_shape]))
    parts.nodes.append(parts.node("Shape", ["spikes"], ["T_and_B"], "sizes", start=0, end=2))
    parts.constant("image", np.array([-1, *graph.input_shape]))
    parts.nodes.append(parts.node("Reshape", ["spikes", "image"], ["images"], "flatten"))
    states, spikes, counts = [], [], []
    if layer_counts:
        parts.constant("places", np.array([2, 3, 4]))
        parts.constant("steps", np.array([0]))
    x = "images"  # (T·B, C, H, W) from layer to layer
    for layer in graph.layers:
        n, fired = layer.name, parts.fired(layer)
        parts.neuron_constants(layer)
        parts.nodes.append(parts.current(layer, x, f"{n}.current"))
        shape = parts.constant(f"{n}.shape", np.array(layer.output_shape))
        parts.nodes.append(parts.node("Concat", ["T_and_B", shape], [f"{n}.apart"], f"{n}/shape", axis=0))
        if unrolled:
            _unroll(parts, layer, unrolled, f"{n}.flat")
            parts.nodes.append(parts.node("Reshape", [f"{n}.flat", f"{n}.apart"], [fired], f"{n}/apart"))
        else:
            _scan(parts, layer, fired)
            whole = parts.constant(f"{n}.image", np.array([-1, *layer.output_shape]))
            parts.nodes.append(parts.node("Reshape", [fired, whole], [f"{n}.flat"], f"{n}/flatten"))
        parts.inputs.append(parts.value(f"v_{n}", ["B", *layer.output_shape]))
        states.append(parts.value(f"v_{n}_next", ["B", *layer.output_shape]))
        spikes.append(parts.value(fired, [time, "B", *layer.output_shape]))
        if layer_counts:
            parts.nodes += [
                parts.node("ReduceSum", [fired, "places"], [f"{n}.a_step"], f"{n}/count", keepdims=0),
                parts.node("Cast", [f"{n}.a_step"], [f"{n}.whole"], f"{n}/whole", to=parts.whole),
                parts.node("ReduceSum", [f"{n}.whole", "steps"], [f"count_{n}"], f"{n}/total", keepdims=0),
            ]
            counts.append(parts.value(f"count_{n}", ["B"], parts.whole))
        x = f"{n}.flat"
    parts.outputs = [spikes[-1], *states, *(spikes[:-1] if layer_spikes else []), *counts]
    return parts.model(UNROLLED if unrolled else SEQUENCE)


def _scan(parts: Parts, layer: GraphLayer, fired: str) -> None:
    """Neurons in a loop: ``<layer>.current`` to ``fired`` (T, B, C, h, w) and ``v_<layer>_next``."""
    n = layer.name
    shape: list[int | str | None] = ["B", *layer.output_shape]
    body = parts.onnx.helper.make_graph(
        parts.neuron(layer, f"{n}.now", f"{n}.before", f"{n}.out", f"{n}.after"),
        f"{n}-step",
        [parts.value(f"{n}.before", shape), parts.value(f"{n}.now", shape)],
        [parts.value(f"{n}.after", shape), parts.value(f"{n}.out", shape)],
    )
    parts.nodes += [
        parts.node("Reshape", [f"{n}.current", f"{n}.apart"], [f"{n}.currents"], f"{n}/currents"),
        parts.node(
            "Scan", [f"v_{n}", f"{n}.currents"], [f"v_{n}_next", fired], f"{n}/scan", body=body, num_scan_inputs=1
        ),
    ]


def _unroll(parts: Parts, layer: GraphLayer, steps: int, fired: str) -> None:
    """Neurons step by step: ``<layer>.current`` to ``fired`` (T·B, C, h, w) and ``v_<layer>_next``."""
    n = layer.name
    currents = [f"{n}.current.{t}" for t in range(steps)]
    spikes = [f"{n}.spikes.{t}" for t in range(steps)]
    membranes = [f"v_{n}", *(f"{n}.v.after.{t}" for t in range(steps - 1)), f"v_{n}_next"]
    parts.nodes.append(parts.node("Split", [f"{n}.current"], currents, f"{n}/split", axis=0, num_outputs=steps))
    for t in range(steps):
        parts.nodes += parts.neuron(layer, currents[t], membranes[t], spikes[t], membranes[t + 1], f".{t}")
    parts.nodes.append(parts.node("Concat", spikes, [fired], f"{n}/join", axis=0))
