r"""From spikes to text on the host: a small ONNX graph that maps spike counts to an embedding for retrieval of texts.

    inputs   counts (B, N, R), spikes of each token and concept over T steps      summary_ratio (B, N, 1), SR
    output   embeds (B, D), unit vectors; those of texts come from ``project_text_for_spikes``

The graph is a trace of the model's own collector and ``project_spiking``, so it is correct for all their variants.
SR comes from the concrete encoder; SR = 1 reads the spikes without it.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ashnets.errors import ConfigurationError, InputError
from ashnets.export.onnx.model import quiet
from ashnets.export.onnx.parts import OPSET, label, read, require, save
from ashnets.model.outputs import VisualOutput

READING = "ashnets-onnx-reading/1"


class SpikingReading(nn.Module):
    """Counts and SR to embeddings, by the modules of the model.

    Args:
        model: a retrieval or pre-training model with a spiking branch.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, counts: torch.Tensor, summary_ratio: torch.Tensor) -> torch.Tensor:
        abstract = self.model.ashnets.vision.collector(counts, self.model.config.time_steps)  # (B, N, M1)
        return self.model.project_spiking(VisualOutput(abstract=abstract, summary_ratio=summary_ratio))  # (B, D)


def has_reading(model: Any) -> bool:
    """Whether a model reads texts from spikes."""
    return hasattr(model, "project_spiking") and hasattr(model, "stua")


def write_onnx_reading(model: Any, path: str | os.PathLike) -> Path:
    """Write this graph for a model.

    Args:
        model: in float32 on the CPU; it is not changed.
        path: of the file, which appears when it is complete.

    Raises:
        ConfigurationError: the model does not read texts from spikes.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    if not has_reading(model):
        raise ConfigurationError(
            f"{type(model).__name__} has no projection from spikes to text: export a retrieval or pre-training model "
            "with a spiking branch"
        )
    library = require("onnx")
    require("onnxscript")
    config, training = model.config, model.training
    size = config.num_visual_tokens, config.response_size
    batch = torch.export.Dim("B", min=1)
    sample = torch.ones(2, *size), torch.ones(2, size[0], 1)
    model.eval()
    try:
        with warnings.catch_warnings(), quiet(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.export.export(
                SpikingReading(model).eval(), sample, dynamic_shapes=({0: batch}, {0: batch}), strict=False
            )
            program = torch.onnx.export(
                traced,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=["counts", "summary_ratio"],
                output_names=["embeds"],
                verbose=False,
            )
    finally:
        model.train(training)
    assert program is not None
    proto = program.model_proto
    del proto.metadata_props[:]
    used = {name for node in proto.graph.node for name in node.input}
    weights = [one for one in proto.graph.initializer if one.name in used]  # not those of the whole model
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(weights)
    notes = {"format": READING, "tokens_and_concepts": json.dumps(size), "time_steps": str(config.time_steps)}
    label(library, proto, notes)
    return save(library, proto, path)


def read_spikes(
    path: str | os.PathLike, counts: torch.Tensor, summary_ratio: torch.Tensor | None = None
) -> torch.Tensor:
    """Embeddings (B, D) of spike counts, in onnxruntime.

    Args:
        path: a file of :func:`write_onnx_reading`.
        counts: spikes of the last layer over T steps, (B, C, h, w), from the exported encoder.
        summary_ratio: SR, (B, N, 1); ones by default.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
        WeightsError: the file is missing, damaged, or no reading of ashnets.
        InputError: counts that do not fit.
    """
    library, runtime = require("onnx"), require("onnxruntime")
    data, properties = read(library, path, (READING,))
    tokens, concepts = json.loads(properties["tokens_and_concepts"])
    flat = counts.float().flatten(2).transpose(1, 2)  # (B, N, R)
    if tuple(flat.shape[1:]) != (tokens, concepts):
        raise InputError(f"counts of shape {tuple(counts.shape)}: {path} takes {concepts} concepts at {tokens} tokens")
    ratio = torch.ones(*flat.shape[:2], 1) if summary_ratio is None else summary_ratio.float()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    given = {"counts": np.ascontiguousarray(flat.numpy()), "summary_ratio": ratio.numpy()}
    return torch.from_numpy(session.run(None, given)[0])
