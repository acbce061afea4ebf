"""NLVR2: does a sentence hold for two images? Accuracy and consistency as the official metrics.py.

The first label is "false", the second "true", as the head's logits are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ashnets.data.benchmarks.records import ImagePair
from ashnets.files import write_atomically
from ashnets.metrics.nlvr2 import nlvr2_accuracy
from ashnets.tasks.task import Classification

LABELS = ("False", "True")


class PairReasoning(Classification):
    """Reasoning about pairs of images."""

    name = "nlvr2"
    kind = ImagePair

    @classmethod
    def of_training(cls, records: Sequence[Any], minimum: int) -> PairReasoning:
        return cls(LABELS)

    @classmethod
    def of_config(cls, config: Any) -> PairReasoning:
        return cls(LABELS)

    def text(self, record: ImagePair) -> str:
        return record.sentence

    def truth(self, record: ImagePair) -> str:
        return str(record.label)

    def targets(self, records: Sequence[ImagePair]) -> torch.Tensor:
        """(B,), 1 where the sentence holds."""
        return torch.tensor([int(record.label) for record in records])

    def scores(self, records: Sequence[ImagePair], said: Sequence[str]) -> list[float]:
        return [float(one == str(record.label)) for record, one in zip(records, said, strict=True)]

    def metrics(self, records: Sequence[ImagePair], said: Sequence[str]) -> dict[str, Any]:
        return nlvr2_accuracy(records, {record.id: one == "True" for record, one in zip(records, said, strict=True)})

    def write(self, folder: Path, records: Sequence[ImagePair], said: Sequence[str]) -> Path:
        lines = [f"{record.id},{one}\n" for record, one in zip(records, said, strict=True)]
        return write_atomically(folder / "predictions.csv", "".join(lines).encode())
