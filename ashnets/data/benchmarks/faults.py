"""Faults in annotation files, with file and line: raised at once, or collected by a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ashnets.errors import DataError

BROKEN, REPEATED, MISSING = "broken", "repeated", "missing images"
_T = TypeVar("_T")


class Place(NamedTuple):
    """A location: a line of a text file, or an entry of a JSON file."""

    path: Path
    unit: str = ""
    number: int | str = 0

    def __str__(self) -> str:
        if not self.unit:
            return str(self.path)
        if self.unit == "line":
            return f"{self.path}, line {self.number}"
        return f"{self.path}, {self.unit}[{self.number!r}]"


class Broken(ValueError):
    """An entry that cannot be read; the message gives reason and remedy, `Faults` adds the place."""


class Faults:
    """Raises a DataError at the first fault; with ``collect``, counts all and keeps the first ``shown``.

    Attributes:
        counts: faults of each kind.
        reasons: messages of the first faults.
    """

    def __init__(self, collect: bool = False, shown: int = 20) -> None:
        self.collect = collect
        self.shown = shown
        self.counts: Counter[str] = Counter()
        self.reasons: list[str] = []
        self._first: dict[Hashable, Place] = {}

    def fresh(self) -> Faults:
        """The same record of faults, for a file whose ids are independent of those seen so far."""
        other = Faults(self.collect, self.shown)
        other.counts, other.reasons = self.counts, self.reasons
        return other

    def report(self, kind: str, place: Place, message: str) -> None:
        """One fault. Raises DataError unless faults are collected."""
        text = f"{place}: {message}"
        if not self.collect:
            raise DataError(text)
        self.counts[kind] += 1
        if len(self.reasons) < self.shown:
            self.reasons.append(text)

    def attempt(self, place: Place, parse: Callable[..., _T], *args: object) -> _T | None:
        """``parse(*args)``, or None after a fault."""
        try:
            return parse(*args)
        except Broken as error:
            self.report(BROKEN, place, str(error))
            return None

    def is_new(self, what: str, value: Hashable, place: Place) -> bool:
        """Whether an id occurs for the first time; a repetition is a fault that names both places."""
        first = self._first.setdefault((what, value), place)
        if first is place:
            return True
        self.report(REPEATED, place, f"{what} {value!r} occurs again here, first at {first}. Remove one of the two.")
        return False


def shown(value: object) -> str:
    """A value for a message, cut to 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def text(raw: object, key: str, *, empty: bool = False) -> str:
    """``raw[key]``, a text, without white space at its ends. Raises Broken if it is not a text."""
    value = field(raw, key)
    if not isinstance(value, str):
        raise Broken(f"key {key!r} is {shown(value)}; it must be a string.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Broken(f"key {key!r} is {shown(value)}, which is not valid Unicode. Correct it.") from None
    if not value.strip() and not empty:
        raise Broken(f"key {key!r} is empty. Fill it or remove the entry.")
    return value.strip()


def whole(raw: object, key: str) -> int:
    """``raw[key]``, an integer. Raises Broken if it is not an integer."""
    value = field(raw, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Broken(f"key {key!r} is {shown(value)}; it must be an integer.")
    return value


def listed(raw: object, key: str) -> list[object]:
    """``raw[key]``, a list. Raises Broken if it is not a list."""
    value = field(raw, key)
    if not isinstance(value, list):
        raise Broken(f"key {key!r} is {shown(value)}; it must be a list.")
    return value


def field(raw: object, key: str) -> object:
    """``raw[key]``. Raises Broken if ``raw`` is not an object or lacks the key."""
    if not isinstance(raw, dict):
        raise Broken(f"it is {shown(raw)}; it must be an object with the key {key!r}.")
    if key not in raw:
        raise Broken(f"key {key!r} is missing; there are {shown(sorted(raw))}.")
    return raw[key]


def file_name(raw: object, key: str) -> str:
    """``raw[key]``, a path inside its folder. Raises Broken if it is not such a path."""
    name = text(raw, key)
    if "\\" in name or "\0" in name or name.startswith("/") or ".." in name.split("/") or ":" in name:
        raise Broken(f"key {key!r} is {shown(name)}; it must be the path of an image inside the folder.")
    return name
