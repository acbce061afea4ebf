"""Files of predictions: every item once; missing, repeated and unknown items are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ashnets.errors import InputError
from ashnets.metrics.submission import (
    read_answer_lines,
    read_answers,
    read_judgments,
    read_labels,
    write_answers,
)

LABELS = ("entailment", "neutral", "contradiction")


def test_what_is_written_is_what_the_server_takes(tmp_path: Path) -> None:
    path = write_answers(tmp_path / "answers.json", {7: "señor", 3: "yes"}, [3, 7])
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert entries == [{"question_id": 3, "answer": "yes"}, {"question_id": 7, "answer": "señor"}]
    assert read_answers(path, [7, 3]) == {3: "yes", 7: "señor"}


def test_nothing_is_written_unless_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 are missing \(7\); 1 are not in this split \(8\)"):
        write_answers(tmp_path / "answers.json", {3: "yes", 8: "no"}, [3, 7])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"question_id": 1, "answer": "a"}], r"of the values of question_id, 4 are missing \(2, 3, 4, …\)"),
        ([{"question_id": i, "answer": "a"} for i in (1, 2, 3, 3, 4, 5)], r"1 occur more than once \(3\)"),
        ([{"question_id": i, "answer": "a"} for i in range(6)], r"1 are not in this split \(0\)"),
        ([{"question_id": "1", "answer": "a"}], "entry 0 is .*'question_id' must be a published id"),
        ([{"question_id": True, "answer": "a"}], "must be a published id"),
        ([{"question_id": 1, "answer": 2}], "entry 0 is .*'answer' must be a string"),
        ([{"answer": "a"}], "must be a published id"),
        (["a"], "must be a string"),
        ({"1": "a"}, "contains no list"),
    ],
)
def test_answers_that_are_not_whole(entries: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=message):
        read_answers(path, [1, 2, 3, 4, 5])


def test_judgments(tmp_path: Path) -> None:
    path = tmp_path / "judgments.csv"
    path.write_text("dev-1-0-0,True\ndev-1-1-0, false\n\n")
    assert read_judgments(path, ["dev-1-1-0", "dev-1-0-0"]) == {"dev-1-0-0": True, "dev-1-1-0": False}
    path.write_text("dev-1-0-0,True\ndev-1-1-0,maybe\n")
    with pytest.raises(InputError, match=r"judgments\.csv, line 2 is 'dev-1-1-0,maybe'"):
        read_judgments(path, ["dev-1-0-0", "dev-1-1-0"])
    path.write_text("dev-1-0-0,True\n")
    with pytest.raises(InputError, match=r"1 are missing \('dev-1-1-0'\)"):
        read_judgments(path, ["dev-1-0-0", "dev-1-1-0"])


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([{"pairID": "1.jpg#0r1n", "label": "neutral"}]))
    assert read_labels(path, ["1.jpg#0r1n"], LABELS) == {"1.jpg#0r1n": "neutral"}
    path.write_text(json.dumps([{"pairID": "1.jpg#0r1n", "label": "maybe"}]))
    with pytest.raises(InputError, match=r"'1\.jpg#0r1n' has the label 'maybe'; give one of entailment"):
        read_labels(path, ["1.jpg#0r1n"], LABELS)


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    path.write_text("red\n\n two \n")
    assert read_answer_lines(path, 3) == ["red", "", "two"]
    with pytest.raises(InputError, match="contains 3 lines for 4 questions"):
        read_answer_lines(path, 4)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    for read in (
        lambda: read_answers(path, [1]),
        lambda: read_labels(path, ["a"], LABELS),
        lambda: read_judgments(path, ["a"]),
        lambda: read_answer_lines(path, 1),
    ):
        try:
            read()
        except InputError as error:
            assert str(path) in str(error)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none cannot be read"):
        read_answers(tmp_path / "none", [1])
