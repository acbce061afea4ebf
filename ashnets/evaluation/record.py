"""The training record of a model."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ashnets.files import JsonObject
from ashnets.hub.resolving import resolve

TRAINING_RECORD = "training.json"
TRAINED_ON = "trained on"  # key of a result if the model was trained on the evaluated data


def training_record(name: str | os.PathLike) -> JsonObject | None:
    """The training record of a model by name or folder; None if it has none."""
    path = Path(resolve(name)) / TRAINING_RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def trained_splits(record: JsonObject | None, dataset: str) -> list[str]:
    """The splits of a data set that a model was trained on, by its training record; may be empty."""
    if not record or record.get("data") != dataset:
        return []
    return list(record.get("train", ["train"]))
