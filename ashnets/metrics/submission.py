"""Files of predictions, in the formats of the benchmarks' own tools; incomplete files are refused.

VQA's server and its evaluation take ``[{"question_id": 1, "answer": "yes"}, …]`` with every question once. NLVR2's
metrics.py takes lines ``identifier,prediction``; COCO-QA's tools take one answer per line, in the order of
the questions. SNLI-VE has no official format; ours is ``[{"pairID": …, "label": …}]``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ashnets.errors import InputError
from ashnets.files import write_atomically

Id = TypeVar("Id", int, str)  # of a question or of a pair


def write_answers(path: str | os.PathLike, answers: Mapping[int, str], question_ids: Collection[int]) -> Path:
    """Write a submission for VQA, ready for the evaluation server.

    Raises:
        InputError: a question without an answer, or an answer to none of the questions.
    """
    require_each_once(str(path), list(answers), question_ids, "question_id")
    entries = [{"question_id": number, "answer": answers[number]} for number in question_ids]
    return write_atomically(path, json.dumps(entries, ensure_ascii=False).encode())


def read_answers(path: str | os.PathLike, question_ids: Collection[int]) -> dict[int, str]:
    """The answers of a submission for VQA, one for each of ``question_ids``.

    Raises:
        InputError: another format, or not every question exactly once.
    """
    return _objects(path, question_ids, "question_id", "answer")


def read_labels(path: str | os.PathLike, pair_ids: Collection[str], labels: Collection[str]) -> dict[str, str]:
    """The labels predicted for SNLI-VE, one for each of ``pair_ids``.

    Raises:
        InputError: another format, a label that is none of ``labels``, or not every pair exactly once.
    """
    predicted = _objects(path, pair_ids, "pairID", "label")
    for pair_id, label in predicted.items():
        if label not in labels:
            raise InputError(f"{path}: pairID {pair_id!r} has the label {label!r}; give one of {', '.join(labels)}.")
    return predicted


def read_judgments(path: str | os.PathLike, identifiers: Collection[str]) -> dict[str, bool]:
    """The judgments predicted for NLVR2 (``identifier,prediction`` per line), one for each of ``identifiers``.

    Raises:
        InputError: another format, or not every pair exactly once.
    """
    found: list[tuple[str, bool]] = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        identifier, _, judgment = (part.strip() for part in line.partition(","))
        if judgment.lower() not in ("true", "false"):
            raise InputError(
                f"{path}, line {number} is {line[:60]!r}; it must be an identifier, a comma, True or False."
            )
        found.append((identifier, judgment.lower() == "true"))
    require_each_once(str(path), [identifier for identifier, _ in found], identifiers, "identifier")
    return dict(found)


def read_answer_lines(path: str | os.PathLike, questions: int) -> list[str]:
    """One answer per line, in the order of the questions; an empty line is an empty answer.

    Raises:
        InputError: not UTF-8, or not ``questions`` lines.
    """
    lines = _text(path).split("\n")
    lines = [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]
    if len(lines) != questions:
        raise InputError(f"{path} contains {len(lines)} lines for {questions} questions; give one answer per line.")
    return lines


def require_each_once(path: str, given: Iterable[Id], wanted: Collection[Id], what: str) -> None:
    """Raises InputError unless ``given`` contains each of ``wanted`` exactly once, and nothing else."""
    seen: set[Id] = set()
    repeated = [value for value in given if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
    known = set(wanted)
    missing = [value for value in wanted if value not in seen]
    unknown = [value for value in seen if value not in known]
    faults = {"occur more than once": repeated, "are missing": missing, "are not in this split": unknown}
    said = [f"{len(values)} {fault} ({_some(values)})" for fault, values in faults.items() if values]
    if said:
        raise InputError(
            f"{path}: of the values of {what}, {'; '.join(said)}. Give each of the {len(known)} items once."
        )


def _some(values: Sequence[Id]) -> str:
    return ", ".join(ascii(value) for value in values[:3]) + (", …" if len(values) > 3 else "")


def _objects(path: str | os.PathLike, ids: Collection[Id], id_key: str, value_key: str) -> dict[Id, str]:
    wanted = int if id_key == "question_id" else str
    try:
        entries = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); it must be a list of {{{id_key!r}: …, {value_key!r}: …}}."
        ) from None
    if not isinstance(entries, list):
        raise InputError(f"{path} contains no list; it must be a list of {{{id_key!r}: …, {value_key!r}: …}}.")
    found: list[tuple[Id, str]] = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get(value_key), str):
            raise InputError(f"{path}, entry {number} is {ascii(entry)[:60]}; its {value_key!r} must be a string.")
        if not isinstance(entry.get(id_key), wanted) or isinstance(entry[id_key], bool):
            raise InputError(f"{path}, entry {number} is {ascii(entry)[:60]}; its {id_key!r} must be a published id.")
        found.append((entry[id_key], entry[value_key]))
    require_each_once(str(path), [key for key, _ in found], ids, id_key)
    return dict(found)


def _text(path: str | os.PathLike) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None
