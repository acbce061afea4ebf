"""The vocabulary of answers and their targets, by hand."""

from __future__ import annotations

import pytest

from ashnets.data.benchmarks import Question
from ashnets.errors import InputError
from ashnets.metrics.answer_vocabulary import answer_vocabulary, soft_targets
from ashnets.metrics.vqa import soft_accuracy


def questions(**counts: int) -> list[Question]:
    answers = [answer for answer, count in counts.items() for _ in range(count)]
    return [Question(i, "p", "?", (answer,) * 10, answer) for i, answer in enumerate(answers)]


def test_nine_right_answers_make_a_word_of_the_vocabulary() -> None:
    asked = questions(yes=12, no=12, cat=9, dog=8)
    assert answer_vocabulary(asked) == ["no", "yes", "cat"]
    assert answer_vocabulary(asked, minimum=8) == ["no", "yes", "cat", "dog"]
    assert answer_vocabulary(reversed(asked)) == ["no", "yes", "cat"]


def test_answers_are_put_into_form_before_they_are_counted() -> None:
    spelled = ["Two", "two", "2", "the two", "2.", "1,000", "1000", "a"]
    asked = [Question(i, "p", "?", (), answer) for i, answer in enumerate(spelled)]
    assert answer_vocabulary(asked, minimum=2) == ["2", "1000"]
    empty = [Question(0, "p", "?", (), answer) for answer in ("", ",", "the")]
    assert answer_vocabulary(empty, minimum=3) == [""]


def test_questions_without_answer_do_not_count() -> None:
    with pytest.raises(InputError, match="no answer occurs 9 times among 0"):
        answer_vocabulary([Question(i, "p", "?") for i in range(20)])


def test_targets_are_thirds_of_annotators() -> None:
    given = ("a",) * 1 + ("b",) * 2 + ("c",) * 3 + ("d",) * 4
    indices = {"d": 0, "c": 1, "b": 2, "a": 3, "e": 4}
    targets = soft_targets(Question(1, "p", "?", given, "d"), indices)
    assert targets == {3: 0.3, 2: 0.6, 1: 0.9, 0: 1.0}
    assert soft_targets(Question(1, "p", "?", ("x",) * 10, "x"), indices) == {}
    assert soft_targets(Question(1, "p", "?", ("a",) * 10, "a"), indices) == {3: 1.0}
    # Annotators' answers count as they stand.
    assert soft_targets(Question(1, "p", "?", ("B",) * 9 + ("b",), "b"), indices) == {2: 0.3}
    for answer, index in (("b", 2), ("c", 1), ("d", 0)):
        assert targets[index] == pytest.approx(soft_accuracy(answer, given))
