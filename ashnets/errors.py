"""Every error that ashnets raises on purpose.

Each message names the thing (file, key, tensor), the value found, and what to do next.
The command line prints the message alone and ends with ``exit_code``; a caller in Python
catches ``AshNetsError`` or the built-in class that stands beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean …?`` with the nearest of the known names, for behind a message; empty if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


class AshNetsError(Exception):
    """Base class; ``exit_code`` is what the command line returns."""

    exit_code = 1


class ConfigurationError(AshNetsError, ValueError):
    """A configuration or recipe holds an unknown key or an impossible value."""

    exit_code = 2


class InputError(AshNetsError, ValueError):
    """An image, a text or an array that a caller handed over cannot be used."""

    exit_code = 3


class DataError(AshNetsError, ValueError):
    """A corpus, a manifest or an annotation file is missing, damaged or inconsistent."""

    exit_code = 4


class WeightsError(AshNetsError, ValueError):
    """Weights are missing, damaged, of the wrong shape or of a kind that is never loaded."""

    exit_code = 5


class UnknownModelError(AshNetsError, LookupError):
    """No registry entry, folder or repository answers to the name."""

    exit_code = 6


class MissingExtraError(AshNetsError, ImportError):
    """A library of an optional extra is not installed."""

    exit_code = 7


class TrainingError(AshNetsError, RuntimeError):
    """A run cannot start, go on or resume."""

    exit_code = 8


class OutputError(AshNetsError, OSError):
    """A result cannot be put where it was asked for: a full disk, no right to write, other files in the way."""

    exit_code = 9
