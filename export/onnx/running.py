r"""Run the ONNX forms of the spiking graph in onnxruntime, and compare their spikes with two references.

onnxruntime and :meth:`SpikingGraph.run` agree in every spike, by construction (see ``graph.py``: sums without rounding,
or integers). Against the trained model, which keeps convolution and tdBN apart, a few spikes in a million differ in the
first layer, and more in each deeper layer (some hundredths of a per cent in the last layer of a calibrated random
encoder with the shape of ``ashnets-tiny``). The reason: folding rounds W' once, while the model rounds the convolution
and tdBN separately, so a neuron within 10⁻⁶ of its threshold can flip. :func:`compare_with_reference` reports both;
``ashnets demo`` prints them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import torch

from ashnets.errors import InputError
from ashnets.export.graph import SpikingGraph, State, check_spikes
from ashnets.export.onnx.parts import read, require
from ashnets.export.onnx.sequence import SEQUENCE, UNROLLED
from ashnets.export.onnx.step import STEP
from ashnets.model.abstract_encoder import AbstractEncoder


@torch.no_grad()
def run_onnx(
    path: str | os.PathLike, spikes: torch.Tensor, state: State | None = None
) -> tuple[dict[str, torch.Tensor], State]:
    """Run a step, sequence or unrolled graph over a sequence in onnxruntime, on the CPU.

    Args:
        path: a file of ``write_onnx_step`` or ``write_onnx_sequence``.
        spikes: (T', B, C, H, W), 0 and 1.
        state: membranes to start from; ``None`` starts from a reset state.

    Returns:
        Spikes by layer name, (T', B, C, h, w), of the layers that the file gives; the membranes after the last step.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        WeightsError: the file is missing, damaged, or no such graph of ashnets.
        InputError: spikes or state do not fit.
    """
    onnx, runtime = require("onnx"), require("onnxruntime")
    data, properties = read(onnx, path, (STEP, SEQUENCE, UNROLLED))
    layers = json.loads(properties["layers"])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    shapes = {put.name: tuple(put.shape) for put in session.get_inputs()}
    steps, batch = spikes.shape[:2]
    check_spikes(spikes, shapes["spikes"][-3:])
    if properties["format"] == UNROLLED and shapes["spikes"][0] != steps:
        raise InputError(f"{path} is unrolled for {shapes['spikes'][0]} steps and cannot run {steps}")
    wanted = [(batch, *shapes[f"v_{n}"][1:]) for n in layers]
    if state is None:
        state = tuple(torch.zeros(shape) for shape in wanted)
    elif (found := [tuple(v.shape) for v in state]) != wanted:
        raise InputError(f"the state has shapes {found}; {path} needs {wanted}")
    membranes = {f"v_{n}": v.float().numpy() for n, v in zip(layers, state, strict=True)}
    names = [put.name for put in session.get_outputs()]
    calls = spikes.float().unbind(0) if properties["format"] == STEP else (spikes.float(),)
    fired: dict[str, list[torch.Tensor]] = {}
    for x in calls:
        out = dict(zip(names, session.run(names, {"spikes": x.numpy(), **membranes}), strict=True))
        membranes = {f"v_{n}": out[f"v_{n}_next"] for n in layers}
        for n in layers:
            value = out.get(n, out.get(f"spikes_{n}"))
            if value is not None:
                fired.setdefault(n, []).append(torch.from_numpy(value))
    join = torch.stack if properties["format"] == STEP else torch.cat
    return {n: join(s) for n, s in fired.items()}, tuple(torch.from_numpy(v) for v in membranes.values())


@dataclass(frozen=True)
class LayerComparison:
    """One layer: the number of compared spikes, and how many of them differ from each of two references."""

    layer: str
    compared: int
    differ_from_graph: int
    differ_from_model: int


@dataclass(frozen=True)
class Comparison:
    """ONNX in onnxruntime against two references, over the same input spikes from a reset state.

    Attributes:
        images, steps: their numbers.
        layers: a :class:`LayerComparison` for each layer.
    """

    images: int
    steps: int
    layers: tuple[LayerComparison, ...]

    @property
    def compared(self) -> int:
        """Spikes (fired or not) compared, over all layers."""
        return sum(layer.compared for layer in self.layers)

    @property
    def differ_from_graph(self) -> int:
        """Number of spikes that differ from those of the neutral graph in torch; it must be 0."""
        return sum(layer.differ_from_graph for layer in self.layers)

    @property
    def differ_from_model(self) -> int:
        """Number of spikes that differ from those of the trained model, whose convolution and tdBN are separate."""
        return sum(layer.differ_from_model for layer in self.layers)


@torch.no_grad()
def compare_with_reference(
    path: str | os.PathLike, graph: SpikingGraph, encoder: AbstractEncoder, spikes: torch.Tensor
) -> Comparison:
    """Run an ONNX graph, its neutral graph and the model on the same spikes and count what differs.

    Args:
        path: a step, sequence or unrolled graph, written with ``layer_spikes=True``.
        graph: the neutral graph of the file.
        encoder: the model's abstract encoder; run in evaluation mode.
        spikes: (T', B, C, H, W).

    Raises:
        InputError: the file has no outputs for the inner layers.
    """
    exported, _ = run_onnx(path, spikes)
    missing = [layer.name for layer in graph.layers if layer.name not in exported]
    if missing:
        raise InputError(f"{path} gives no spikes of {', '.join(missing)}: write it with layer_spikes=True")
    folded, _ = graph.run(spikes)
    training = encoder.training
    encoder.eval()
    try:
        original, _ = encoder.run(spikes.float())
    finally:
        encoder.train(training)
    return Comparison(
        images=spikes.shape[1],
        steps=spikes.shape[0],
        layers=tuple(
            LayerComparison(
                layer=name,
                compared=folded[name].numel(),
                differ_from_graph=int((exported[name] != folded[name]).sum()),
                differ_from_model=int((exported[name] != original[name]).sum()),
            )
            for name in (layer.name for layer in graph.layers)
        ),
    )
