"""The initial model of fine-tuning: trained weights with a new head, or the initial weights of pre-training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ashnets.errors import WeightsError
from ashnets.files import JsonObject
from ashnets.model.ashnets import AshNetsModel
from ashnets.model.heads import AshNetsForRetrieval, head_class
from ashnets.processor import AshNetsProcessor
from ashnets.training.continuing import take_over
from ashnets.training.recipe import INITIAL, TaskRecipe
from ashnets.training.setup import Started, build_model
from ashnets.words import without_place


def starting_model(recipe: TaskRecipe, texts: Iterable[str], keys: JsonObject) -> Started:
    """Configuration, processor, model of the recipe's task, and a sentence for each source of its weights.

    The recipe's ``changes`` may remove a part of the model, such as the summary ratio (Table XI). Its weights are then
    left out.

    Args:
        texts: the training texts; with ``weights: initial``, a pruned vocabulary contains only their pieces.
        keys: configuration keys; they override those of the recipe.

    Raises:
        WeightsError, UnknownModelError, ConfigurationError: as ``from_pretrained`` or ``build_model``.
    """
    head: Any = head_class(recipe.task)
    if recipe.weights == INITIAL:
        return build_model(recipe, texts, head, **keys)
    torch.manual_seed(recipe.seed)
    try:
        trained = (head if head is AshNetsForRetrieval else AshNetsModel).from_pretrained(recipe.model)
        config = type(trained.config).from_dict({**trained.config.to_dict(), **recipe.changes, **keys})
        model = head(config)
        left = take_over(trained.state_dict(), model if head is AshNetsForRetrieval else model.ashnets, recipe)
    except WeightsError as error:
        raise WeightsError(f"{error}; --set weights=initial starts where pre-training does") from error
    said = [f"all tensors: trained weights of {without_place(recipe.model)}"]
    if head is not AshNetsForRetrieval:
        said = [f"all but the classifier: trained weights of {without_place(recipe.model)}; the classifier: random"]
    said += [f"left out: {len(left)} tensors that the variant has no place for, such as {left[0]}"] if left else []
    return config, AshNetsProcessor.from_pretrained(recipe.model), model, said
