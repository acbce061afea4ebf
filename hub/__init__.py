"""From a name to weights, and from weights to the Hub."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "from_pretrained": "loading",
    "locate": "resolving",
    "publish": "publishing",
    "resolve": "resolving",
    "verify": "resolving",
    "verify_model": "verifying",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ashnets.hub' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ashnets.hub.{_HOME[name]}"), name)
