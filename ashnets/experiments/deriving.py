"""What a row must drop or change by its nature, in one place.

ann                no spiking branch: no STUA, no MVM
without collector  no concepts: no MVM
snn                no concrete branch: a phase with concrete features alone trains the spiking ones instead
ViT                the paper's SGD is for CNNs: the concrete encoder has the optimizer of the transformer
φ                  groups never span devices: the batch is a multiple of φ × devices, its fused pairs in proportion
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ashnets.configuration import AshNetsConfig
from ashnets.files import JsonObject
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import SINGLE, Recipe
from ashnets.zoo.registry import config_of


def row_overrides(
    path: Path,
    changes: Mapping[str, object],
    without: Sequence[str] = (),
    devices: int = 1,
    model: AshNetsConfig | None = None,
) -> list[str]:
    """The overrides, ``key=value``, that make a row of a recipe: its changes, and what follows from them.

    Args:
        path: the base recipe.
        changes: key → value, as for ``--set``.
        without: objectives that are not trained.
        devices: that the run will have.
        model: the configuration of the model that fine-tuning starts from; else that of the recipe.

    Raises:
        ConfigurationError: a change that the recipe does not allow.
    """
    changes = changes if model is not None else _real_changes(path, changes)
    recipe = load_recipe(path, as_overrides(changes))
    config = configuration_of(recipe) if model is None else model
    return as_overrides({**changes, **by_nature(recipe, config, without, devices)})


def _real_changes(path: Path, changes: Mapping[str, object]) -> JsonObject:
    """Without changes of the configuration to what it is: rows that are equal have equal recipes."""
    others = {key: value for key, value in changes.items() if not key.startswith("changes.")}
    base = configuration_of(load_recipe(path, as_overrides(others))).to_dict()
    return {key: value for key, value in changes.items() if key in others or base.get(key[8:]) != value}


def by_nature(recipe: Recipe, config: AshNetsConfig, without: Sequence[str], devices: int) -> JsonObject:
    """Key → value, for what a recipe with this model cannot keep."""
    lacking = {*without}
    lacking |= set() if config.has_spiking_branch else {"stua", "mvm", "distill"}
    lacking |= set() if config.has_concrete_branch else {"distill"}
    lacking |= set() if config.collector else {"mvm"}
    found: JsonObject = {}
    for number, phase in enumerate(recipe.phases):
        kept = {name: weight for name, weight in phase.objectives.items() if name not in lacking}
        if kept != phase.objectives:
            found[f"phases.{number}.objectives"] = kept
        if phase.concrete_only and not config.has_concrete_branch:
            found[f"phases.{number}.concrete_only"] = False
    if config.backbone.startswith("vit"):
        found["optimizers.concrete"] = asdict(recipe.optimizers["transformer"])
    group = 1 if recipe.phases[0].grouping == SINGLE else config.group_size
    if recipe.batch_size % (group * devices):
        size = -(-recipe.batch_size // (group * devices)) * group * devices
        found["batch_size"] = size
        found["fused_pairs"] = round(recipe.fused_pairs * size / recipe.batch_size)
    return found


def configuration_of(recipe: Recipe) -> AshNetsConfig:
    """The configuration of a pre-training recipe's model, but for its vocabulary."""
    return AshNetsConfig(**{**config_of(recipe.model).to_dict(), **recipe.changes})


def as_overrides(changes: Mapping[str, object]) -> list[str]:
    """``key=value``, as ``--set`` takes them; the values are JSON, which YAML reads."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
