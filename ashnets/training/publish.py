"""The published form of a finished run's model: what ``from_pretrained`` loads, with its records beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ashnets.files import write_json
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.training.evaluate import TRAINING_RECORD


def write_model(
    model: AshNetsPreTrainedModel, processor: AshNetsProcessor, run: Path, record: dict[str, Any]
) -> Path:
    """Write ``run/model``: weights in float16, configuration, processor, recipe, log, and the record of the run.

    It is written aside and renamed: a folder ``model`` is a whole one.
    """
    folder, aside = run / "model", run / "model.partial"
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    weights = load_file(aside / "model.safetensors")
    halved = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    del weights
    save_file(halved, aside / "half", metadata={"format": "pt"})
    (aside / "half").replace(aside / "model.safetensors")
    processor.save_pretrained(aside)
    write_json(aside / TRAINING_RECORD, record)
    for name in ("recipe.yaml", "log.jsonl"):
        shutil.copyfile(run / name, aside / name)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder
