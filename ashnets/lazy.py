"""Packages that import what they offer on first use: asking for a light name loads nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def fetch(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What ``package`` offers as ``name``; for a module's ``__getattr__``.

    Args:
        package: its whole name.
        homes: name → the module that defines it.

    Raises:
        AttributeError: the package offers no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)
