"""What a task is to the loop that trains it and to the evaluation: texts, targets, answers, metrics.

A task with a classifier is a subclass of `Classification`, in a file of its own; retrieval has no classes and brings
its own evaluation (`ashnets.evaluation.retrieval`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ashnets.data.benchmarks.records import Record


class Classification(ABC):
    """A task whose head chooses one of some labels for a text and its image or images.

    Args:
        labels: what the classifier's outputs mean, in their order.

    Attributes:
        name: the task's name, that of its head and of its loss.
        kind: class of its records.
    """

    name: ClassVar[str]
    kind: ClassVar[type]

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)

    @classmethod
    @abstractmethod
    def of_training(cls, records: Sequence[Any], minimum: int) -> Classification:
        """The task that training records define; ``minimum`` is the recipe's ``answers_minimum``."""

    @classmethod
    @abstractmethod
    def of_config(cls, config: Any) -> Classification:
        """The task that a trained model's configuration defines."""

    def configuration(self) -> dict[str, Any]:
        """Keys of the configuration that the head and a later evaluation need."""
        return {}

    def start(self, head: nn.Module) -> None:  # noqa: B027 - most classifiers start as they are
        """Set what a new classifier of this task starts from; by default nothing."""

    @abstractmethod
    def text(self, record: Any) -> str:
        """What the model reads."""

    @abstractmethod
    def truth(self, record: Any) -> str:
        """The right label."""

    def can_learn(self, record: Any) -> bool:
        """Whether a record has a target."""
        return True

    @abstractmethod
    def targets(self, records: Sequence[Any]) -> torch.Tensor:
        """What the head's loss takes for B records."""

    @abstractmethod
    def scores(self, records: Sequence[Any], said: Sequence[str]) -> list[float]:
        """How right each label is, in [0, 1]; their mean is the task's accuracy."""

    @abstractmethod
    def metrics(self, records: Sequence[Any], said: Sequence[str]) -> dict[str, Any]:
        """The task's official metrics."""

    @abstractmethod
    def write(self, folder: Path, records: Sequence[Any], said: Sequence[str]) -> Path:
        """The file of predictions that the benchmark's own tools take."""

    def kind_of(self, record: Record) -> str:
        """The kind of item, by which baselines and tables are split; empty where there is one kind."""
        return ""


def labels_of(config: Any) -> list[str]:
    """``id2label`` of a configuration in the order of its numbers."""
    found: Mapping[Any, str] = config.id2label
    return [found[key] for key in sorted(found, key=int)]
