r"""The whole model as one ONNX graph: images, a text and spikes to the outputs of its task.

    inputs    pixel_values (B, 3, H, W)   input_ids (B, L)   attention_mask (B, L)   spikes (T, B, 3, H, W)
    outputs   those of the head, such as image_embeds, text_embeds, itm_logits; on request count_<layer> (B,)

B and L are dynamic. NLVR2 takes two images a sentence: pixel_values (B, 2, 3, H, W), spikes (T, 2·B, 3, H, W). The
sampler is not part of the graph: the caller draws the spikes (``ashnets.model.sampling``). Each image starts from reset
membranes and has its own response.

torch's exporter traces the artificial parts. The spiking branch is the neutral graph, so its spikes equal those of
every other export. The float arithmetic after it has another order than torch's: it is equal up to :data:`TOLERANCE`,
not to the bit. In the model, convolution and tdBN are separate; compared with it, one spike in thousands may differ
(see ``running.py``), and the outputs then differ more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ashnets.errors import InputError
from ashnets.export.graph import SpikingGraph, from_model
from ashnets.export.onnx.parts import EXTERNAL_ABOVE, OPSET, describe, label, read, require, save
from ashnets.model.abstract_encoder import SpikingResponse
from ashnets.model.integer import BIT, DECAY_ONE, MEMBRANE_LIMIT
from ashnets.model.pretrained import AshNetsPreTrainedModel

if TYPE_CHECKING:
    import onnx

MODEL = "ashnets-onnx-model/2"
TOLERANCE = 1e-4  # of an output, relative to its largest magnitude
_INPUTS = ("pixel_values", "input_ids", "attention_mask", "spikes")
_OUTPUTS = (
    "last_hidden_state",
    "pooler_output",
    "logits",
    "image_embeds",
    "text_embeds",
    "itm_logits",
    "mlm_logits",
    "mvm_logits",
    "spiking_embeds",
    "stua_text_embeds",
)


class FoldedEncoder(nn.Module):
    """The neutral graph in the place of the abstract encoder, for images alone (φ = 1, from a reset state)."""

    def __init__(self, graph: SpikingGraph) -> None:
        super().__init__()
        self.graph = graph
        for layer in graph.layers:
            c = layer.integer
            self.register_buffer(f"{layer.name}_weight", layer.weight if c is None else c.weight.float() * BIT)
            self.register_buffer(f"{layer.name}_bias", layer.bias if c is None else c.bias.float() * BIT)

    def forward(
        self, spikes: torch.Tensor, group_size: int = 1, readout: str | None = None, state: Any = None
    ) -> SpikingResponse:
        """Spikes (T, B, C, H, W) to the response; see ``AbstractEncoder.forward``."""
        if group_size != 1 or state is not None:
            raise InputError("the folded encoder runs images alone, from a reset state: group_size=1 and no state")
        steps, batch = spikes.shape[:2]
        fired = {}
        for layer in self.graph.layers:
            current = torch.conv2d(
                spikes.flatten(0, 1),
                getattr(self, f"{layer.name}_weight"),
                getattr(self, f"{layer.name}_bias"),
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
            )  # (T·B, C', h, w)
            spikes = self._neurons(layer, current.view(steps, batch, *layer.output_shape))  # (T, B, C', h, w)
            fired[layer.name] = spikes
        counts = spikes.sum(0).flatten(2).transpose(1, 2)  # (B, N, R)
        return SpikingResponse(
            response=counts,
            counts=None,
            layer_spikes={name: x.sum(-1).sum((0, 2, 3)) for name, x in fired.items()},
            layer_neurons={layer.name: layer.neurons for layer in self.graph.layers},
            state=(),
        )

    @staticmethod
    def _neurons(layer: Any, current: torch.Tensor) -> torch.Tensor:
        c, out = layer.integer, []
        v = torch.zeros_like(current[0])
        for x in current.unbind(0):
            if c is None:
                h = layer.beta * v + x
                over = h > layer.theta
            else:  # exact in float64; torch's exporter makes a division of integers one of float32, which rounds
                kept = torch.trunc(v.double() * ((DECAY_ONE - c.decay) / DECAY_ONE)).float()
                h = (kept + x).clamp(-MEMBRANE_LIMIT, MEMBRANE_LIMIT)
                over = h > c.threshold * BIT
            out.append(over.float())
            v = h * (1 - out[-1])
        return torch.stack(out)


class _Positional(nn.Module):
    """The model with positional tensors as inputs and a tuple as output, like an exported graph."""

    def __init__(self, model: AshNetsPreTrainedModel, names: list[str], counts: list[str]) -> None:
        super().__init__()
        self.model, self.names, self.counts = model, names, counts

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        spikes: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        out = self.model(
            pixel_values=pixel_values,
            input_ids=input_ids,
            attention_mask=attention_mask,
            spikes=spikes,
            **({} if spikes is None else {"readout": "per_image"}),
        )
        counts = [out.visual.layer_spikes[name].to(torch.int64) for name in self.counts]  # (B,) each
        return (*(getattr(out, name) for name in self.names), *counts)


def write_onnx_model(
    model: AshNetsPreTrainedModel,
    path: str | os.PathLike,
    layer_counts: bool = False,
    external_above: int = EXTERNAL_ABOVE,
) -> Path:
    """Write a model of any task with its spiking branch.

    Args:
        model: ``AshNetsModel`` or a head on it, in float32 on the CPU; it is not changed.
        path: of the file, which appears when it is complete.
        layer_counts: add outputs with the spikes of each spiking layer, summed over T.
        external_above: larger weights, in bytes, are stored in a separate file, ``path.data``.

    Raises:
        ConfigurationError: the model has no spiking branch.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    library = require("onnx")
    require("onnxscript")
    graph = from_model(model)
    with _folded(model, graph):
        proto, names = _trace(model, graph, layer_counts)
    del proto.metadata_props[:]
    notes = {
        "format": MODEL,
        **describe(graph),
        "class": type(model).__name__,
        "inputs": json.dumps(list(_INPUTS)),
        "outputs": json.dumps(names),
        "configuration": json.dumps(model.config.to_diff_dict(), default=str, sort_keys=True),
    }
    label(library, proto, notes)
    return save(library, proto, path, external_above)


def _trace(model: AshNetsPreTrainedModel, graph: SpikingGraph, layer_counts: bool) -> tuple[onnx.ModelProto, list[str]]:
    inputs = sample_inputs(model, batch=2, length=min(5, model.config.max_text_length))
    with torch.no_grad():
        out = model(**inputs, readout="per_image")
    names = [name for name in _OUTPUTS if isinstance(getattr(out, name, None), torch.Tensor)]
    counted = [layer.name for layer in graph.layers] if layer_counts else []
    batch, length = torch.export.Dim("B", min=1), torch.export.Dim("L", min=2, max=model.config.max_text_length)
    pair = inputs["pixel_values"].dim() == 5
    dynamic = ({0: batch}, {0: batch, 1: length}, {0: batch, 1: length}, {1: 2 * batch if pair else batch})
    outputs = [*names, *(f"count_{name}" for name in counted)]
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        # torch.export first: torch.onnx.export itself silently uses fixed sizes if dynamic ones fail.
        traced = torch.export.export(
            _Positional(model, names, counted).eval(),
            tuple(inputs[name] for name in _INPUTS),
            dynamic_shapes=dynamic,
            strict=False,
        )
        program = torch.onnx.export(
            traced, (), dynamo=True, opset_version=OPSET, input_names=list(_INPUTS), output_names=outputs, verbose=False
        )
    assert program is not None
    proto = program.model_proto
    _name_sizes(proto)
    return proto, outputs


def _name_sizes(proto: onnx.ModelProto) -> None:
    """Replace the exporter's symbols by B and L."""
    shapes = {put.name: put.type.tensor_type.shape.dim for put in proto.graph.input}
    symbols = {shapes["pixel_values"][0].dim_param: "B", shapes["input_ids"][1].dim_param: "L"}
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, symbols))})\b")
    for put in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for size in put.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = pattern.sub(lambda found: symbols[found[0]], size.dim_param)


def sample_inputs(model: AshNetsPreTrainedModel, batch: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random images, token ids and spikes of the shapes that a model needs, for a test."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    pair = type(model).__name__ == "AshNetsForVisualReasoning"
    size = (3, config.image_size, config.image_size)
    pixels = torch.rand(batch, *((2,) if pair else ()), *size, generator=generator)
    flat = pixels.flatten(0, 1) if pair else pixels
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, length // 2 + 1 :] = 0
    return {
        "pixel_values": pixels,
        "input_ids": torch.randint(config.vocab_size, (batch, length), generator=generator),
        "attention_mask": mask,
        "spikes": (torch.rand(config.time_steps, *flat.shape, generator=generator) < flat).float(),
    }


@torch.no_grad()
def run_onnx_model(path: str | os.PathLike, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run a file of :func:`write_onnx_model` in onnxruntime, on the CPU.

    Args:
        path: of the file.
        inputs: ``pixel_values``, ``input_ids``, ``attention_mask`` and ``spikes``.

    Returns:
        The outputs by name.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        WeightsError: the file is missing, damaged, or no whole model of ashnets.
        InputError: inputs are missing or do not fit.
    """
    library, runtime = require("onnx"), require("onnxruntime")
    data, properties = read(library, path, (MODEL,))
    wanted = json.loads(properties["inputs"])
    if set(inputs) != set(wanted):
        raise InputError(f"{path} takes {', '.join(wanted)}; given: {', '.join(sorted(inputs)) or 'nothing'}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    try:
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # onnxruntime's own classes
        shapes = ", ".join(f"{name} {tuple(value.shape)} {value.dtype}" for name, value in inputs.items())
        raise InputError(f"{path} cannot run {shapes} ({' '.join(str(error).split())[:300]})") from error
    return {name: torch.from_numpy(v) for name, v in zip(json.loads(properties["outputs"]), found, strict=True)}


@torch.no_grad()
def largest_difference(
    model: AshNetsPreTrainedModel, found: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor], folded: bool = True
) -> dict[str, float]:
    """The largest difference of each output from that of the model, and the largest magnitude of the output.

    Args:
        model: the model of the file.
        found: the result of :func:`run_onnx_model`.
        inputs: the inputs of both.
        folded: compare with the model whose spiking branch is the neutral graph, otherwise with the model itself.
    """
    replaced = _folded(model, from_model(model)) if folded else contextlib.nullcontext()
    training = model.training
    with replaced:
        out = model.eval()(**inputs, readout="per_image")
    model.train(training)
    expected = {name: getattr(out, name) for name in found if not name.startswith("count_")}
    counts = {f"count_{name}": value for name, value in out.visual.layer_spikes.items()}
    differences = {}
    for name, value in found.items():
        right = expected[name] if name in expected else counts[name]
        scale = float(right.abs().max()) or 1.0
        differences[name] = float((value.double() - right.double()).abs().max()) / scale
    return differences


@contextlib.contextmanager
def _folded(model: Any, graph: SpikingGraph) -> Iterator[None]:
    """Inside, ``graph`` replaces the spiking branch of ``model``, and inputs are not checked: a trace cannot."""
    base = getattr(model, "ashnets", model)
    transformer, encoder, training = base.transformer, base.vision.abstract_encoder, model.training

    def embed_text(input_ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        return transformer.bert.embeddings(
            input_ids=input_ids, position_ids=positions, token_type_ids=torch.zeros_like(input_ids)
        )

    base.vision.abstract_encoder = FoldedEncoder(graph).to(encoder.layers["conv1"].conv.weight.device)
    transformer.embed_text = embed_text
    model.eval()
    try:
        yield
    finally:
        del transformer.embed_text
        base.vision.abstract_encoder = encoder
        model.train(training)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the exporter's progress, which it writes to a logger and to stdout."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(None), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logger.setLevel(before)
