r"""The answer vocabulary of a VQA classifier, and its soft training targets.

    answers a with #{questions of train + val whose right answer is a} ≥ 9        3,129 of VQA v2
    target(a) = 0, 0.3, 0.6, 0.9, 1 for 0, 1, 2, 3, 4 or more annotators who gave a

The right answer is ``multiple_choice_answer``, normalized; the source then removes commas, but none is left.
Annotators' answers are counted unchanged, as for the published targets. An answer scores 1 against the official
accuracy from four annotators on, 0.3 per annotator below: the targets are that accuracy.

Source: Teney et al., Tips and Tricks for Visual Question Answering, 2018, and the implementation used by later work,
 https://github.com/hengyuan-hu/bottom-up-attention-vqa, tools/compute_softscore.py. That orders by a Python 2
dictionary; here the order is by frequency, then by letter, so that it is the same on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ashnets.data.benchmarks.records import Question
from ashnets.errors import InputError
from ashnets.metrics.answers import normalize_answer

MINIMUM = 9
_SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)


def answer_vocabulary(questions: Iterable[Question], minimum: int = MINIMUM) -> list[str]:
    """The answers that are right at least ``minimum`` times, most frequent first.

    Args:
        questions: of every split to count over, each once; those without an answer do not count.

    Raises:
        InputError: no answer is frequent enough.
    """
    counts = Counter(normalize_answer(question.answer) for question in questions if question.answer is not None)
    kept = [answer for answer, count in counts.items() if count >= minimum]
    if not kept:
        raise InputError(f"no answer occurs {minimum} times among {counts.total()} answers: give more questions")
    return sorted(kept, key=lambda answer: (-counts[answer], answer))


def soft_targets(question: Question, indices: Mapping[str, int]) -> dict[int, float]:
    """Training targets of a question: index of the answer → target in (0, 1]; all other answers have target 0.

    Args:
        indices: ``{answer: index for index, answer in enumerate(vocabulary)}``.
    """
    counts = Counter(question.answers)
    return {indices[answer]: _SCORES[min(count, 4)] for answer, count in counts.items() if answer in indices}
