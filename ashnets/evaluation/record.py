"""What a model says of its training."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ashnets.files import JsonObject
from ashnets.hub.resolving import resolve

TRAINING_RECORD = "training.json"
TRAINED_ON = "trained on"  # in a result where the model learned from what it is measured on


def training_record(name: str | os.PathLike) -> JsonObject | None:
    """The training record of a model by name or folder; None if it has none."""
    path = Path(resolve(name)) / TRAINING_RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def trained_splits(record: JsonObject | None, dataset: str) -> list[str]:
    """The splits of a data set that a model was trained on, by its training record; none if that is of another one."""
    if not record or record.get("data") != dataset:
        return []
    return list(record.get("train", ["train"]))
