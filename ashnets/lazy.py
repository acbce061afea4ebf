"""Lazy imports for packages: each name is imported on first use, so that light names load nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def fetch(package: str, homes: Mapping[str, str], name: str) -> Any:
    """Import ``name`` of ``package``; for a module's ``__getattr__``.

    Args:
        package: its full name.
        homes: name → the module that defines it.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)
