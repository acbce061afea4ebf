"""The model that fine-tuning starts from: trained weights under a new head, or the start of pre-training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

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

    The recipe's ``changes`` may take a part away, as another summary ratio does (Table XI): its weights are left out.

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
    try:
        trained = (head if head is AshNetsForRetrieval else AshNetsModel).from_pretrained(recipe.model)
        config = type(trained.config).from_dict({**trained.config.to_dict(), **recipe.changes, **keys})
        model = head(config)
        other = head is AshNetsForRetrieval and trained.config.matching != config.matching
        renewed = [name for name in model.state_dict() if other and name.startswith("itm.")]
        left = _take_over(trained, model if head is AshNetsForRetrieval else model.ashnets, recipe, renewed)
    except WeightsError as error:
        raise WeightsError(f"{error}; --set weights=initial starts where pre-training does") from error
    new = "the classifier" if head is not AshNetsForRetrieval else "ITM's layer" if renewed else ""
    said = [f"all but {new}: trained weights of {recipe.model}; {new}: random"]
    if not new:
        said = [f"all tensors: trained weights of {recipe.model}"]
    said += [f"left out: {len(left)} tensors that the variant has no place for, such as {left[0]}"] if left else []
    return config, AshNetsProcessor.from_pretrained(recipe.model), model, said


def _take_over(trained: nn.Module, model: nn.Module, recipe: TaskRecipe, renewed: list[str]) -> list[str]:
    """Give ``model``, which may lack parts, the tensors of ``trained``; the names of those it has no place for.

    Args:
        renewed: names of tensors that keep their random start.
    """
    own = model.state_dict()
    tensors = {**trained.state_dict(), **{name: own[name] for name in renewed}}
    unfit = [name for name, tensor in own.items() if name not in tensors or tensors[name].shape != tensor.shape]
    if unfit:
        raise WeightsError(
            f"{recipe.model} has no weights for {len(unfit)} tensors that the recipe's changes ask for, "
            f"such as {unfit[0]}"
        )
    model.load_state_dict({name: tensors[name] for name in own})
    return [name for name in tensors if name not in own]
