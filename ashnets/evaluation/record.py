"""The training record of a model."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ashnets.errors import DataError
from ashnets.files import JsonObject
from ashnets.hub.resolving import resolve

TRAINING_RECORD = "training.json"
TRAINED_ON = "trained on"  # key of a result if the model was trained on the evaluated data


def training_record(name: str | os.PathLike) -> JsonObject | None:
    """The training record of a model by name or folder; None if it has none.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(resolve(name)) / TRAINING_RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}): fetch the model again, or remove the file") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} contains no JSON object: fetch the model again, or remove the file")
    return record


def trained_splits(record: JsonObject | None, dataset: str) -> list[str]:
    """The splits of a data set that a model was trained on, by its training record; may be empty."""
    if not record or record.get("data") != dataset:
        return []
    return list(record.get("train", ["train"]))
