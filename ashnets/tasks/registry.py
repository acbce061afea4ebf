"""The tasks with a classifier, by name."""

from __future__ import annotations

from ashnets.tasks.entailment import VisualEntailment
from ashnets.tasks.nlvr2 import PairReasoning
from ashnets.tasks.task import Classification
from ashnets.tasks.vqa import VisualQuestionAnswering

CLASSIFICATIONS: dict[str, type[Classification]] = {
    task.name: task for task in (VisualQuestionAnswering, PairReasoning, VisualEntailment)
}
TASKS = (*CLASSIFICATIONS, "retrieval")
