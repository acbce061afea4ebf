"""The published form of a finished run's model: what ``from_pretrained`` loads, together with its records."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ashnets.data.learned import write_sketch
from ashnets.evaluation.record import TRAINING_RECORD
from ashnets.files import JsonObject, write_json
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.result_folder import MODEL_MARK, result_folder
from ashnets.training.folder import MODEL


def write_model(
    model: AshNetsPreTrainedModel,
    processor: AshNetsProcessor,
    run: Path,
    record: JsonObject,
    learned: Sequence[str],
) -> Path:
    """Write ``run/model``: weights in float16, configuration, processor, recipe, log, and the record of the run.

    ``learned`` is the sketch of the training items (`ashnets.data.learned`).

    It is written as a :func:`~ashnets.result_folder.result_folder`: a folder ``model`` is always complete.
    """
    with result_folder(run / MODEL, MODEL_MARK) as aside:
        model.save_pretrained(aside)
        halved = {key: in_half(tensor) for key, tensor in load_file(aside / "model.safetensors").items()}
        save_file(halved, aside / "half", metadata={"format": "pt"})
        (aside / "half").replace(aside / "model.safetensors")
        processor.save_pretrained(aside)
        write_json(aside / TRAINING_RECORD, record)
        write_sketch(aside, learned)
        for name in ("recipe.yaml", "log.jsonl"):
            shutil.copyfile(run / name, aside / name)
    return run / MODEL


def in_half(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of floats in float16, or unchanged if float16 cannot hold it: it ends at 65,504.

    A running variance may be larger, as for pixels on a scale of 0 to 255.
    """
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor
