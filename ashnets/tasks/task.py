"""The interface of a task for training and evaluation: texts, targets, answers, metrics.

A task with a classifier is a subclass of `Classification` in its own file. Retrieval has no classes and has its own
evaluation (`ashnets.evaluation.retrieval`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

import torch
from torch import nn

from ashnets.configuration import AshNetsConfig
from ashnets.data.benchmarks.records import Entailment, ImagePair, Question, Record
from ashnets.files import JsonObject

R = TypeVar("R", Question, ImagePair, Entailment)


class Classification(ABC, Generic[R]):
    """A task whose head chooses a label for a text and its image or images.

    Args:
        labels: the labels, in the order of the classifier's outputs.

    Attributes:
        name: the name of the task, of its head and of its loss.
        kind: the class of its records.
    """

    name: ClassVar[str]
    kind: ClassVar[type[Record]]

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)

    @classmethod
    @abstractmethod
    def of_training(cls, records: Sequence[R], minimum: int) -> Self:
        """The task with the labels of training records; ``minimum`` is the recipe's ``answers_minimum``."""

    @classmethod
    @abstractmethod
    def of_config(cls, config: AshNetsConfig) -> Self:
        """The task with the labels of a trained model's configuration."""

    def configuration(self) -> JsonObject:
        """Configuration keys for the head and for later evaluations."""
        return {}

    def start(self, head: nn.Module) -> None:
        """Initialize a new classifier of this task; by default, nothing is changed."""

    @abstractmethod
    def text(self, record: R) -> str:
        """The text that the model reads."""

    @abstractmethod
    def truth(self, record: R) -> str:
        """The correct label."""

    def acceptable(self, record: R) -> set[str]:
        """All labels with a score above 0 for a record; there may be others in the set."""
        return {self.truth(record)}

    def can_learn(self, record: R) -> bool:
        """Whether a record has a target."""
        return True

    @abstractmethod
    def targets(self, records: Sequence[R]) -> torch.Tensor:
        """The targets of B records for the head's loss."""

    @abstractmethod
    def scores(self, records: Sequence[R], said: Sequence[str]) -> list[float]:
        """The score of each predicted label, in [0, 1]; the mean is the task's accuracy."""

    @abstractmethod
    def metrics(self, records: Sequence[R], said: Sequence[str]) -> JsonObject:
        """The task's official metrics."""

    @abstractmethod
    def write(self, folder: Path, records: Sequence[R], said: Sequence[str]) -> Path:
        """Write the predictions as a file for the benchmark's own tools."""

    def kind_of(self, record: R) -> str:
        """The kind of the item; baselines and tables report each kind. Empty if the task has only one kind."""
        return ""


def labels_of(config: AshNetsConfig) -> list[str]:
    """``id2label`` of a configuration, in numerical order."""
    return [label for _, label in sorted((config.id2label or {}).items(), key=lambda item: int(item[0]))]
