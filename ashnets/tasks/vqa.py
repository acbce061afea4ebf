"""Question answering as classification over the answers of the training data.

    loss = Σ_a BCE(logit_a, target_a)

With ten annotators (VQA v2, VQA-CP v2), targets are the soft scores of Teney et al., and the labels are the answers
that are correct at least nine times (`ashnets.metrics.answer_vocabulary`). With one correct answer (COCO-QA, easy-VQA,
derived tasks), its target is 1, and answers are compared as exact strings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from ashnets.configuration import AshNetsConfig
from ashnets.data.benchmarks.records import Question
from ashnets.errors import DataError, WeightsError
from ashnets.files import JsonObject, write_atomically
from ashnets.metrics.answer_vocabulary import answer_vocabulary, soft_targets
from ashnets.metrics.answers import normalize_answer, trimmed
from ashnets.metrics.coco_qa import coco_qa_accuracy
from ashnets.metrics.submission import write_answers
from ashnets.metrics.vqa import soft_accuracy, vqa_accuracy
from ashnets.tasks.task import Classification, labels_of


class VisualQuestionAnswering(Classification[Question]):
    """VQA; ``labels`` are the possible answers."""

    name = "vqa"
    kind = Question

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.indices = {answer: number for number, answer in enumerate(self.labels)}

    @classmethod
    def of_training(cls, records: Sequence[Question], minimum: int) -> Self:
        """Raises DataError if no answer is correct ``minimum`` times, or the answers are not public."""
        if any(len(record.answers) > 1 for record in records):
            return cls(answer_vocabulary(records, minimum))
        counts = Counter(record.answer for record in records if record.answer is not None)
        kept = sorted((a for a, count in counts.items() if count >= minimum), key=lambda a: (-counts[a], a))
        if not kept:
            raise DataError(
                f"no answer is right {minimum} times among {counts.total()} with public answers: lower answers_minimum"
            )
        return cls(kept)

    @classmethod
    def of_config(cls, config: AshNetsConfig) -> Self:
        """Raises WeightsError if the configuration does not name the answers."""
        answers = labels_of(config)
        if len(answers) != config.num_answers:
            raise WeightsError(
                f"the model gives {config.num_answers} answers and its config.json names {len(answers)} (id2label): it "
                "was not fine-tuned by `ashnets finetune vqa`"
            )
        return cls(answers)

    def configuration(self) -> JsonObject:
        return {"num_answers": len(self.labels), "id2label": dict(enumerate(self.labels))}

    @torch.no_grad()
    def start(self, head: Any) -> None:
        """Initialize the probability of each of A answers to 1/A.

        With a probability of 0.5, the loss of the first epochs would come mostly from thousands of wrong answers.

        Source: the prior of Lin et al., Focal Loss for Dense Object Detection, 2017, section 3.3.
        """
        head.classifier[-1].bias.fill_(-math.log(max(1, len(self.labels) - 1)))

    def text(self, record: Question) -> str:
        return record.question

    def truth(self, record: Question) -> str:
        return record.answer or ""

    def acceptable(self, record: Question) -> set[str]:
        normalized = (
            {normalize_answer(trimmed(answer)) for answer in record.answers} if len(record.answers) > 1 else set()
        )
        return {self.truth(record), *normalized}

    def can_learn(self, record: Question) -> bool:
        return bool(self._targets(record))

    def _targets(self, record: Question) -> dict[int, float]:
        if len(record.answers) > 1:
            return soft_targets(record, self.indices)
        return {self.indices[record.answer]: 1.0} if record.answer in self.indices else {}

    def targets(self, records: Sequence[Question]) -> torch.Tensor:
        """(B, answers), float32."""
        found = torch.zeros(len(records), len(self.labels))
        for row, record in enumerate(records):
            for index, score in self._targets(record).items():
                found[row, index] = score
        return found

    def scores(self, records: Sequence[Question], said: Sequence[str]) -> list[float]:
        return [
            soft_accuracy(one, record.answers) if len(record.answers) > 1 else float(one == record.answer)
            for record, one in zip(records, said, strict=True)
        ]

    def metrics(self, records: Sequence[Question], said: Sequence[str]) -> JsonObject:
        if any(len(record.answers) > 1 for record in records):
            return vqa_accuracy(records, {record.id: one for record, one in zip(records, said, strict=True)})
        return coco_qa_accuracy(records, said)

    def write(self, folder: Path, records: Sequence[Question], said: Sequence[str]) -> Path:
        # if answers are not public, an evaluation server takes the same format
        if any(len(record.answers) > 1 or record.answer is None for record in records):
            answers = {record.id: one for record, one in zip(records, said, strict=True)}
            return write_answers(folder / "predictions.json", answers, list(answers))
        return write_atomically(folder / "predictions.txt", "".join(f"{one}\n" for one in said).encode())

    def kind_of(self, record: Question) -> str:
        return record.answer_type
