"""ASH-Nets: artificial-spiking hierarchical networks for vision and language.

    import ashnets
    model = ashnets.from_pretrained("ashnets-tiny")
    processor = ashnets.AshNetsProcessor.from_pretrained("ashnets-tiny")

Each command of the command line is a function of the same name, except that ``ashnets export`` is `export_encoder`,
since ``ashnets.export`` is a package. Everything is imported on first use: ``import ashnets`` alone loads no torch.
After it, transformers' Auto classes and pipelines know our classes.
"""

from __future__ import annotations

import importlib
from typing import Any

from ashnets import auto_classes, lazy
from ashnets.version import __version__ as __version__

_HOMES = {
    "AshNetsConfig": "ashnets.configuration",
    "AshNetsError": "ashnets.errors",
    "AshNetsForPreTraining": "ashnets.model",
    "AshNetsForRetrieval": "ashnets.model",
    "AshNetsForVQA": "ashnets.model",
    "AshNetsForVisualEntailment": "ashnets.model",
    "AshNetsForVisualReasoning": "ashnets.model",
    "AshNetsModel": "ashnets.model",
    "AshNetsProcessor": "ashnets.processor",
    "ImageQuestions": "ashnets.image_search.asking",
    "ImageSearch": "ashnets.image_search.searching",
    "ImageSpikes": "ashnets.image_search.showing",
    "app": "ashnets.web_app.serving",
    "ask": "ashnets.image_search.asking",
    "compare": "ashnets.export.models",
    "config_of": "ashnets.zoo.registry",
    "create": "ashnets.zoo.creating",
    "describe": "ashnets.zoo.describing",
    "encode": "ashnets.image_search.encoding",
    "energy": "ashnets.export.models",
    "evaluate": "ashnets.evaluation.evaluating",
    "experiment": "ashnets.experiments.experiment",
    "export_encoder": "ashnets.export.models",
    "finetune": "ashnets.runs",
    "from_pretrained": "ashnets.hub.loading",
    "index": "ashnets.image_search.indexing",
    "list_models": "ashnets.zoo.registry",
    "publish": "ashnets.hub.publishing",
    "quantize": "ashnets.quantization.tasks",
    "resolve": "ashnets.hub.resolving",
    "search": "ashnets.image_search.searching",
    "show": "ashnets.image_search.showing",
    "train": "ashnets.runs",
    "verify": "ashnets.hub.verifying",
}
_PACKAGES = ("export", "hub", "model", "zoo")

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"ashnets.{name}")
    found = lazy.fetch(__name__, _HOMES, name)
    if _HOMES[name] in ("ashnets.configuration", "ashnets.model"):
        _register()  # these two modules alone register only some of the classes in the docstring
    return found


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_PACKAGES])


def _register() -> None:
    importlib.import_module("ashnets.processor")  # registers the processors; its imports register the models


auto_classes.offer(_register)
