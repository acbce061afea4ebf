"""Every error that ashnets raises on purpose.

Each message names the object (file, key, tensor), the value found, and what to do next.
The command line prints only the message and exits with ``exit_code``. A caller in Python
catches ``AshNetsError`` or the built-in base class of the error.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean …?`` with the most similar known name, to append to a message; empty if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def one_line(error: OSError) -> str:
    """``FILE: reason`` if the operating system gives both, else the error's own text."""
    if error.filename is not None and error.strerror:
        return f"{Path(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error) or type(error).__name__


class AshNetsError(Exception):
    """Base class; the command line exits with ``exit_code``."""

    exit_code = 1


class ConfigurationError(AshNetsError, ValueError):
    """A configuration or recipe contains an unknown key or an impossible value."""

    exit_code = 2


class InputError(AshNetsError, ValueError):
    """An image, a text or an array from the caller cannot be used."""

    exit_code = 3


class DataError(AshNetsError, ValueError):
    """A corpus, a manifest or an annotation file is missing, damaged or inconsistent."""

    exit_code = 4


class WeightsError(AshNetsError, ValueError):
    """Weights are missing, damaged, of the wrong shape, or in a format that is never loaded."""

    exit_code = 5


class UnknownModelError(AshNetsError, LookupError):
    """No registry entry, folder or repository has this name."""

    exit_code = 6


class MissingExtraError(AshNetsError, ImportError):
    """A library of an optional extra is not installed."""

    exit_code = 7


class TrainingError(AshNetsError, RuntimeError):
    """A run cannot start, continue or resume."""

    exit_code = 8


class OutputError(AshNetsError, OSError):
    """A result cannot be written to its place: the disk is full, writing is not allowed, or other files are there."""

    exit_code = 9
