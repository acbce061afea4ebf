r"""VQA's soft accuracy: the score of an answer grows with the number of annotators who gave it.

    accuracy = 1/10 · Σ_i min(#{others than annotator i who gave the answer} / 3, 1)

Each of the ten annotators is left out once, so that models and humans are scored in the same way: three of ten who
agree give 0.9, not 1; four give 1. Answers are normalized (`normalize_answer`) only if the annotators' answers differ;
otherwise they are compared unchanged, so ``Two`` does not match ``two`` given by all annotators.

Source: Antol et al., VQA, 2015, https://visualqa.org/evaluation.html, and the official vqaEval.py, whose percentages
are ours · 100, rounded to two digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ashnets.data.benchmarks.records import Question
from ashnets.errors import InputError
from ashnets.files import JsonObject
from ashnets.metrics.answers import normalize_answer, trimmed
from ashnets.metrics.means import accuracy_by


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of one answer in [0, 1].

    Args:
        answers: one of each annotator, ten in VQA v2.

    Raises:
        InputError: no answers.
    """
    said, given = _compared(prediction, answers)
    matching = given.count(said)
    return sum(min(1, (matching - (answer == said)) / 3) for answer in given) / len(given)


def paper_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The paper's simplified form, its eq. 12: Accuracy(a) = min(#humans that said (a) / 3, 1).

    No annotator is left out, so it is at least `soft_accuracy`: two of ten who agree give 0.667 here, 0.6 there. The
    paper's tables are from the official evaluation server; compare with them by `soft_accuracy`.

    Raises:
        InputError: no answers.
    """
    said, given = _compared(prediction, answers)
    return min(given.count(said) / 3, 1.0)


def _compared(prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Prediction and answers, normalized only if the annotators differ, as in the official evaluator."""
    if not answers:
        raise InputError("the question has no answers: the accuracy needs those of its annotators")
    given, said = [trimmed(answer) for answer in answers], trimmed(prediction)
    if len(set(given)) > 1:
        given, said = [normalize_answer(answer) for answer in given], normalize_answer(said)
    return said, given


def vqa_accuracy(questions: Iterable[Question], predictions: Mapping[int, str]) -> JsonObject:
    """Soft accuracy of VQA v2 and VQA-CP v2, overall and for each type of answer and of question.

    Args:
        questions: with their answers.
        predictions: one answer for each question id.

    Returns:
        ``{"n", "accuracy", "by answer type": {…}, "by question type": {…}, "accuracy by the paper's eq. 12"}``,
        accuracies in [0, 1].

    Raises:
        InputError: no questions, one without prediction, or one whose answers are not published.
    """
    questions = list(questions)
    for question in questions:
        if not question.answers:
            raise InputError(f"the answers of question {question.id} are not published: use the evaluation server")
        if question.id not in predictions:
            raise InputError(f"question {question.id} has no prediction: every question needs one")
    scores = [soft_accuracy(predictions[question.id], question.answers) for question in questions]
    simple = [paper_accuracy(predictions[question.id], question.answers) for question in questions]
    return {
        **accuracy_by(
            scores,
            {
                "by answer type": [question.answer_type for question in questions],
                "by question type": [question.question_type for question in questions],
            },
        ),
        "accuracy by the paper's eq. 12": sum(simple) / len(simple),
    }
