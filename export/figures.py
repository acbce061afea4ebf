"""Data files of figures: every figure has value, unit, source and year; unexpected keys are errors."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from ashnets.errors import ConfigurationError
from ashnets.files import JsonObject

PICOJOULES = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3, "µJ": 1e6}
NANOSECONDS = {"ps": 1e-3, "ns": 1.0, "µs": 1e3, "ms": 1e6}
FIELDS = ("value", "unit", "source", "year")


@dataclass(frozen=True)
class Constant:
    """A figure from a source, with the source and its year."""

    value: float
    unit: str
    source: str
    year: int

    @property
    def picojoules(self) -> float:
        """An energy in pJ."""
        return self.value * PICOJOULES[self.unit]

    @property
    def nanoseconds(self) -> float:
        """A time in ns."""
        return self.value * NANOSECONDS[self.unit]


class FigureFile:
    """Reads one YAML file; every message names the file and the key.

    Args:
        path: of the file.
        example: a file of this form, which messages name.
    """

    def __init__(self, path: Path, example: str) -> None:
        self.path, self.example = path, example

    def yaml(self) -> JsonObject:
        """The file's keys; raises ConfigurationError if it cannot be read."""
        try:
            found = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{self.path} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{self.path} is not valid YAML ({' '.join(str(error).split())})") from None
        if not isinstance(found, dict):
            self.refuse(f"contains {type(found).__name__}, not keys with values; {self.example} shows the form")
        return found

    def keys(self, key: str, entry: object, needed: Set[str], allowed: Set[str] = frozenset()) -> JsonObject:
        """The entry, a mapping with all keys of ``needed`` and no others than those and ``allowed``."""
        if not isinstance(entry, dict):
            self.refuse(f"{key}={entry!r} must contain the keys {', '.join(sorted(needed))}")
        if missing := sorted(needed - set(entry)):
            self.refuse(f"{key} lacks {', '.join(missing)}; {self.example} shows the form")
        if unknown := sorted(map(str, set(entry) - needed - allowed)):
            self.refuse(f"{key} has no key {', '.join(unknown)}; it takes {', '.join(sorted(needed | allowed))}")
        return entry

    def constant(self, key: str, entry: object, units: tuple[str, ...] = tuple(PICOJOULES)) -> Constant:
        """A figure in one of ``units``; energies by default."""
        found = self.keys(key, entry, set(FIELDS))
        value, unit = self.number(f"{key}.value", found["value"]), found["unit"]
        if unit not in units:
            self.refuse(f"{key}.unit={unit!r} must be one of {', '.join(units)}")
        self.source(key, found)
        return Constant(value, unit, found["source"], found["year"])

    def source(self, key: str, entry: JsonObject) -> None:
        """Require the source in words and its year."""
        source, year = entry["source"], entry["year"]
        if not isinstance(source, str) or not source.strip():
            self.refuse(f"{key}.source={source!r} must name the source of the figure in words")
        if isinstance(year, bool) or not isinstance(year, int) or not 1900 < year < 2100:
            self.refuse(f"{key}.year={year!r} must be the year of the source, as a number")

    def number(self, key: str, value: object) -> float:
        """A finite number, at least 0."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            self.refuse(f"{key}={value!r} must be a number, at least 0 (write 1.0e-3, not 1e-3)")
        return float(value)

    def whole(self, key: str, value: object) -> int:
        """A whole number, at least 1."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.refuse(f"{key}={value!r} must be a whole number, at least 1")
        return value

    def title(self, value: object) -> str:
        """One line of words."""
        if not isinstance(value, str) or not value.strip():
            self.refuse(f"title={value!r} must name the hardware in words")
        return value

    def sentences(self, key: str, value: object) -> tuple[str, ...]:
        """A list of sentences."""
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            self.refuse(f"{key}={value!r} must be a list of sentences")
        return tuple(value)

    def refuse(self, what: str) -> NoReturn:
        """Raise ConfigurationError."""
        raise ConfigurationError(f"{self.path}: {what}")
