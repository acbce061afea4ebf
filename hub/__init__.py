"""Find weights by name, and publish weights on the Hub."""

from __future__ import annotations

from typing import Any

from ashnets import lazy

_HOMES = {
    "from_pretrained": "ashnets.hub.loading",
    "locate": "ashnets.hub.resolving",
    "publish": "ashnets.hub.publishing",
    "resolve": "ashnets.hub.resolving",
    "verify": "ashnets.hub.verifying",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy.fetch(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return __all__
