"""Visual entailment: does an image entail a hypothesis, contradict it, or neither?

The model does not see the premise's caption.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from ashnets.configuration import AshNetsConfig
from ashnets.data.benchmarks.records import Entailment
from ashnets.files import JsonObject, write_atomically
from ashnets.metrics.entailment import entailment_accuracy
from ashnets.model.classifiers import AshNetsForVisualEntailment
from ashnets.tasks.task import Classification


class VisualEntailment(Classification[Entailment]):
    """SNLI-VE's three labels."""

    name = "ve"
    kind = Entailment

    @classmethod
    def of_training(cls, records: Sequence[Entailment], minimum: int) -> Self:
        return cls(AshNetsForVisualEntailment.LABELS)

    @classmethod
    def of_config(cls, config: AshNetsConfig) -> Self:
        return cls(AshNetsForVisualEntailment.LABELS)

    def text(self, record: Entailment) -> str:
        return record.hypothesis

    def truth(self, record: Entailment) -> str:
        return record.label

    def targets(self, records: Sequence[Entailment]) -> torch.Tensor:
        """(B,), indices of the labels."""
        return torch.tensor([self.labels.index(record.label) for record in records])

    def scores(self, records: Sequence[Entailment], said: Sequence[str]) -> list[float]:
        return [float(one == record.label) for record, one in zip(records, said, strict=True)]

    def metrics(self, records: Sequence[Entailment], said: Sequence[str]) -> JsonObject:
        return entailment_accuracy(records, {record.id: one for record, one in zip(records, said, strict=True)})

    def write(self, folder: Path, records: Sequence[Entailment], said: Sequence[str]) -> Path:
        entries = [{"pairID": record.id, "label": one} for record, one in zip(records, said, strict=True)]
        return write_atomically(folder / "predictions.json", json.dumps(entries, ensure_ascii=False).encode())
