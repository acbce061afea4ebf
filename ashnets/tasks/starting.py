"""The model that fine-tuning starts from: trained weights under a new head, or the start of pre-training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ashnets.configuration import AshNetsConfig
from ashnets.errors import WeightsError
from ashnets.model.ashnets import AshNetsModel
from ashnets.model.heads import AshNetsForRetrieval, head_class
from ashnets.processor import AshNetsProcessor
from ashnets.training.recipe import TaskRecipe
from ashnets.training.setup import build_model


def starting_model(
    recipe: TaskRecipe, texts: Iterable[str], keys: dict[str, Any]
) -> tuple[AshNetsConfig, AshNetsProcessor, Any, list[str]]:
    """Configuration, processor, model of the recipe's task, and a sentence for each source of its weights.

    Args:
        texts: those that it will read; with ``weights: initial`` a pruned vocabulary is cut to them.
        keys: of the configuration, over those of the recipe.

    Raises:
        WeightsError, UnknownModelError, ConfigurationError: as ``from_pretrained`` or ``build_model``.
    """
    head: Any = head_class(recipe.task)
    if recipe.weights == "initial":
        return build_model(recipe, texts, head, **keys)
    torch.manual_seed(recipe.seed)
    changes = {**recipe.changes, **keys}
    try:
        if head is AshNetsForRetrieval:
            model = head.from_pretrained(recipe.model, **changes)
            said = f"all tensors: trained weights of {recipe.model}"
        else:
            base = AshNetsModel.from_pretrained(recipe.model, **changes)
            model = head(base.config)
            model.ashnets.load_state_dict(base.state_dict())
            said = f"all but the classifier: trained weights of {recipe.model}; the classifier: random"
    except WeightsError as error:
        raise WeightsError(f"{error}; --set weights=initial starts where pre-training does") from error
    return model.config, AshNetsProcessor.from_pretrained(recipe.model), model, [said]
