r"""COCO-QA: accuracy for each type of question, and WUPS, which forgives an answer that means nearly the same.

    WUPS_θ = mean over questions of min( Π_a max_t μ(a, t), Π_t max_a μ(a, t) )      a: items predicted, t: true ones
    μ(a, t) = wup if wup ≥ θ else wup / 10,      wup = max over senses of Wu and Palmer's similarity; 1 if a = t

Items are separated by commas; COCO-QA has one each, so the formula is μ alone. θ = 0.9 is the strict form, θ = 0 the
lenient one. A word that WordNet does not know is similar to itself only. Percentages as published are ours · 100.
Sources: Ren et al., 2015, section 3; Malinowski and Fritz, A Multi-World Approach, 2014, and their calculate_wups.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ashnets.data.benchmarks.records import Question
from ashnets.errors import InputError
from ashnets.files import JsonObject
from ashnets.metrics.means import accuracy_by
from ashnets.metrics.wordnet import WordNet

THRESHOLDS = (0.9, 0.0)
_PENALTY = 0.1


def coco_qa_accuracy(
    questions: Sequence[Question], answers: Sequence[str], wordnet: WordNet | None = None
) -> JsonObject:
    """Accuracy and, with WordNet, WUPS.

    Args:
        answers: one for each question, in order.

    Returns:
        ``{"n", "accuracy", "by answer type": {…}}``, with WordNet also ``"WUPS 0.9"`` and ``"WUPS 0.0"``; in [0, 1].

    Raises:
        InputError: no questions, or not one answer for each.
    """
    if len(questions) != len(answers):
        raise InputError(f"{len(answers)} answers for {len(questions)} questions: give one for each")
    truths = [question.answer or "" for question in questions]
    right = [float(said.strip() == truth) for said, truth in zip(answers, truths, strict=True)]
    found = accuracy_by(right, {"by answer type": [question.answer_type for question in questions]})
    if wordnet is not None:
        for threshold in THRESHOLDS:
            scores = [wups(said, truth, wordnet, threshold) for said, truth in zip(answers, truths, strict=True)]
            found[f"WUPS {threshold}"] = sum(scores) / len(scores)
    return found


def wups(answer: str, truth: str, wordnet: WordNet, threshold: float) -> float:
    """WUPS of one answer in [0, 1]; both may be several items, separated by commas."""

    def alike(one: str, other: str) -> float:
        return _weighted(one, other, wordnet, threshold)

    said, true = _items(answer), _items(truth)
    return min(_product(said, true, alike), _product(true, said, alike))


def _items(answer: str) -> list[str]:
    return [item.strip() for item in answer.split(",")]


def _product(items: list[str], among: list[str], alike: Callable[[str, str], float]) -> float:
    return math.prod(max(alike(item, other) for other in among) for item in items)


def _weighted(one: str, other: str, wordnet: WordNet, threshold: float) -> float:
    if one == other:
        return 1.0
    senses, others = wordnet.senses(one), wordnet.senses(other)
    best = max((wordnet.similarity(a, b) for a in senses for b in others), default=0.0)
    return best if best >= threshold else best * _PENALTY
