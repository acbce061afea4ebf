"""The registry of models: names, configurations, weights."""

from __future__ import annotations

from typing import Any

from ashnets import lazy

_HOMES = {
    "Description": "ashnets.zoo.describing",
    "Entry": "ashnets.zoo.registry",
    "Weights": "ashnets.zoo.registry",
    "config_of": "ashnets.zoo.registry",
    "create": "ashnets.zoo.creating",
    "describe": "ashnets.zoo.describing",
    "entry": "ashnets.zoo.registry",
    "is_name": "ashnets.zoo.registry",
    "list_models": "ashnets.zoo.registry",
    "recipe_path": "ashnets.zoo.registry",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy.fetch(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return __all__
