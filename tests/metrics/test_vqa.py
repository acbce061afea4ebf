"""VQA's soft accuracy: the published examples, its peculiarities, and a loop over the sets of nine annotators."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashnets.data.benchmarks import Question
from ashnets.errors import InputError
from ashnets.metrics.vqa import paper_accuracy, soft_accuracy, vqa_accuracy

EIGHT_YES = ("yes",) * 8 + ("no",) * 2


def test_the_example_of_the_evaluations_author() -> None:
    """https://github.com/GT-Vision-Lab/VQA/issues/1: eight yes and two no give 1.0 and 0.6."""
    assert soft_accuracy("yes", EIGHT_YES) == 1
    assert soft_accuracy("no", EIGHT_YES) == pytest.approx(0.6)


@pytest.mark.parametrize(("agree", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1)])
def test_each_number_of_annotators_who_agree(agree: int, score: float) -> None:
    given_ones = ["net"] * agree + [f"word{i}" for i in range(10 - agree)]
    assert soft_accuracy("net", given_ones) == pytest.approx(score)


def test_answers_of_one_voice_are_compared_as_they_stand() -> None:
    assert soft_accuracy("two", ["2"] * 10) == 0
    assert soft_accuracy("Two", ["two"] * 10) == 0
    assert soft_accuracy(" two\n", ["two\t"] * 10) == 1
    # One letter of difference, and everything is put into form.
    assert soft_accuracy("two", ["2"] * 9 + ["Two"]) == 1
    assert soft_accuracy("The Dogs!", ["dogs"] * 4 + ["cats"] * 6) == 1
    assert soft_accuracy("none", ["none"] * 3 + ["0"] * 7) == 1


WORDS = st.sampled_from(["yes", "no", "two", "2", "the two", "Yes", "a"])


@given(prediction=WORDS, answers=st.lists(WORDS, min_size=10, max_size=10))
def test_equals_a_loop_over_the_sets_of_nine(prediction: str, answers: list[str]) -> None:
    form = {"two": "2", "the two": "2", "Yes": "yes", "a": ""}
    if len(set(answers)) > 1:
        prediction, answers = form.get(prediction, prediction), [form.get(answer, answer) for answer in answers]
    nines = list(itertools.combinations(answers, 9))
    exact = sum(min(Fraction(1), Fraction(nine.count(prediction), 3)) for nine in nines) / len(nines)
    assert soft_accuracy(prediction, answers) == pytest.approx(float(exact), abs=1e-12)


def test_the_papers_form_leaves_nobody_out() -> None:
    assert paper_accuracy("no", EIGHT_YES) == pytest.approx(2 / 3)
    assert [paper_accuracy("net", ["net"] * n + list("abcdefghij"[n:])) for n in (0, 1, 3, 4)] == [0, 1 / 3, 1, 1]


def test_overall_and_by_type() -> None:
    def question(number: int, kind: str, start: str, *answers: str) -> Question:
        return Question(number, "p", "?", answers, answers[0], kind, start)

    questions = [
        question(1, "yes/no", "is the", *EIGHT_YES),
        question(2, "yes/no", "is there", *EIGHT_YES),
        question(3, "other", "is the", *["net"] * 10),
    ]
    found = vqa_accuracy(questions, {1: "yes", 2: "no", 3: "mesh", 99: "unused"})
    assert found == {
        "n": 3,
        "accuracy": pytest.approx(1.6 / 3),
        "by answer type": {"other": 0, "yes/no": pytest.approx(0.8)},
        "by question type": {"is the": 0.5, "is there": pytest.approx(0.6)},
        "accuracy by the paper's eq. 12": pytest.approx((1 + 2 / 3) / 3),
    }


def test_what_cannot_be_scored_is_refused() -> None:
    asked = Question(1, "p", "?", ("yes",) * 10, "yes")
    with pytest.raises(InputError, match="question 1 has no prediction"):
        vqa_accuracy([asked], {})
    with pytest.raises(InputError, match="question 2 are not published"):
        vqa_accuracy([Question(2, "p", "?")], {2: "yes"})
    with pytest.raises(InputError, match="nothing to score"):
        vqa_accuracy([], {})
    for accuracy in (soft_accuracy, paper_accuracy):
        with pytest.raises(InputError, match="no answers"):
            accuracy("yes", [])
