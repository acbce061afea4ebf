"""ASH-Nets: artificial-spiking hierarchical networks for vision and language.

    import ashnets
    model = ashnets.from_pretrained("ashnets-tiny")
    processor = ashnets.AshNetsProcessor.from_pretrained("ashnets-tiny")

Everything is imported on first use: ``import ashnets`` alone does not load torch. After it, transformers' AutoConfig,
AutoModel, AutoProcessor and AutoImageProcessor know our classes.
"""

from __future__ import annotations

import importlib
from typing import Any

from ashnets.auto_classes import offer

__version__ = "0.1.0"

_HOME = {
    "AshNetsConfig": "ashnets.configuration",
    "AshNetsProcessor": "ashnets.processor",
    "AshNetsModel": "ashnets.model",
    "AshNetsForPreTraining": "ashnets.model",
    "AshNetsForRetrieval": "ashnets.model",
    "AshNetsForVQA": "ashnets.model",
    "AshNetsForVisualReasoning": "ashnets.model",
    "AshNetsForVisualEntailment": "ashnets.model",
    "AshNetsError": "ashnets.errors",
    "list_models": "ashnets.zoo",
    "describe": "ashnets.zoo",
    "config_of": "ashnets.zoo",
    "create": "ashnets.zoo",
    "from_pretrained": "ashnets.hub",
    "resolve": "ashnets.hub",
    "PictureQuestions": "ashnets.inference.asking",
    "PictureSearch": "ashnets.inference.searching",
    "ask": "ashnets.inference.asking",
    "index": "ashnets.inference.indexing",
    "search": "ashnets.inference.searching",
}
_PACKAGES = ("export", "hub", "model", "zoo")

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"ashnets.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'ashnets' has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    if _HOME[name] in ("ashnets.configuration", "ashnets.model"):
        importlib.import_module("ashnets.processor")  # which registers what they do not: see the docstring
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_PACKAGES])


offer()
