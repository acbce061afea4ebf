"""NLVR2: is a sentence true for two images? Accuracy and consistency are those of the official metrics.py.

The first label is "False", the second "True", in the order of the head's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from ashnets.configuration import AshNetsConfig
from ashnets.data.benchmarks.records import ImagePair
from ashnets.files import JsonObject, write_atomically
from ashnets.metrics.nlvr2 import nlvr2_accuracy
from ashnets.tasks.task import Classification

LABELS = ("False", "True")


class PairReasoning(Classification[ImagePair]):
    """Reasoning about pairs of images."""

    name = "nlvr2"
    kind = ImagePair

    @classmethod
    def of_training(cls, records: Sequence[ImagePair], minimum: int) -> Self:
        return cls(LABELS)

    @classmethod
    def of_config(cls, config: AshNetsConfig) -> Self:
        return cls(LABELS)

    def text(self, record: ImagePair) -> str:
        return record.sentence

    def truth(self, record: ImagePair) -> str:
        return str(record.label)

    def targets(self, records: Sequence[ImagePair]) -> torch.Tensor:
        """(B,), 1 if the sentence is true."""
        return torch.tensor([int(record.label) for record in records])

    def scores(self, records: Sequence[ImagePair], said: Sequence[str]) -> list[float]:
        return [float(one == str(record.label)) for record, one in zip(records, said, strict=True)]

    def metrics(self, records: Sequence[ImagePair], said: Sequence[str]) -> JsonObject:
        return nlvr2_accuracy(records, {record.id: one == "True" for record, one in zip(records, said, strict=True)})

    def write(self, folder: Path, records: Sequence[ImagePair], said: Sequence[str]) -> Path:
        lines = [f"{record.id},{one}\n" for record, one in zip(records, said, strict=True)]
        return write_atomically(folder / "predictions.csv", "".join(lines).encode())
