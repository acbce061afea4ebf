"""The rules that a recipe must fulfill."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ashnets.errors import ConfigurationError
from ashnets.objectives import NAMES
from ashnets.training.recipe import (
    AUGMENTATIONS,
    AUTO,
    BACKBONE,
    BASELINES,
    GROUPINGS,
    PARTS,
    PRETRAINED,
    SINGLE,
    TASKS,
    Recipe,
    TaskRecipe,
)


def check_recipe(recipe: Recipe, where: str) -> None:
    """Check the values of a recipe from the file ``where``, alone and together.

    Raises:
        ConfigurationError: naming the file, the key and the value.
    """

    def need(holds: bool, message: str) -> None:
        if not holds:
            raise ConfigurationError(f"{where}: {message}")

    need(isinstance(recipe.changes, dict), f"changes={recipe.changes!r} must be keys with values, or {{}} for none")
    need(bool(recipe.phases), "phases is empty; a run needs at least one")
    names = [phase.name for phase in recipe.phases]
    need(len(set(names)) == len(names), f"phases {names} share a name")
    fit = all(re.fullmatch(r"[\w-]+", name) for name in names)
    need(fit, f"phases {names}: a name becomes a folder and may contain only letters, digits, - and _")
    task = recipe.task if isinstance(recipe, TaskRecipe) else None
    tagged = re.fullmatch(r"([\w-]+)[.@].*", recipe.model)
    weights = "names trained weights" if tagged else "contains trained weights" if _has_weights(recipe.model) else ""
    need(
        task is not None or not weights or recipe.weights == PRETRAINED,
        f"model={recipe.model!r} {weights}, but weights={recipe.weights} starts without any: write "
        f"model={tagged[1] if tagged else 'NAME, the name of its architecture'}. To start from trained weights, set "
        f"weights={recipe.model}; to start from a finished phase, start=RUN/phase-NAME",
    )
    begun = recipe.weights == PRETRAINED and task is None
    need(not begun or recipe.start is None, f"start={recipe.start!r} and trained weights: set weights=initial")
    need(
        recipe.start is None or recipe.stdp is None,
        f"start={recipe.start!r} and stdp, which is a stage before the first phase: remove one of them",
    )
    need(not begun or recipe.baseline is None, "a baseline is pre-trained without trained weights: set weights=initial")
    need(task is None or task in TASKS, f"task={task!r} is not one of {', '.join(TASKS)}")
    for i in range(len(recipe.phases)):
        _check_phase(recipe, i, need)
    augmentation = recipe.augmentation
    need(set(recipe.optimizers) == set(PARTS), f"optimizers must have exactly the keys {', '.join(PARTS)}")
    for name, optimizer in recipe.optimizers.items():
        need(optimizer.kind in ("adamw", "sgd"), f"optimizers.{name}.kind={optimizer.kind!r} is not adamw or sgd")
        need(optimizer.lr > 0, f"optimizers.{name}.lr={optimizer.lr!r} must be positive")
        decay = optimizer.weight_decay
        need(decay >= 0, f"optimizers.{name}.weight_decay={decay!r} must not be negative")
    need(
        recipe.schedule.kind in ("milestones", "cosine"),
        f"schedule.kind={recipe.schedule.kind!r} is not milestones or cosine",
    )
    gamma = recipe.schedule.gamma
    need(0 < gamma <= 1, f"schedule.gamma={gamma!r} must be above 0 and at most 1")
    milestones = recipe.schedule.milestones
    rising = milestones == sorted(set(milestones))
    need(rising, f"schedule.milestones={milestones} must be epochs in ascending order")
    need(
        bool(recipe.views) or not recipe.remember_features or augmentation == "none",
        "remember_features with views=0 would keep features that are never used again: set views to 3, for example",
    )
    warmup = recipe.schedule.phase_warmup_steps
    need(warmup >= 0, f"schedule.phase_warmup_steps={warmup} must not be negative")
    need(recipe.seed >= 0, f"seed={recipe.seed} must not be negative")
    precisions = (AUTO, "bf16", "fp32")
    need(recipe.precision in precisions, f"precision={recipe.precision!r} is not one of {', '.join(precisions)}")
    need(augmentation in AUGMENTATIONS, f"augment={augmentation!r} is not one of {', '.join(AUGMENTATIONS)}")
    need(recipe.vocabulary in ("pruned", "full"), f"vocabulary={recipe.vocabulary!r} is not pruned or full")
    fits = 0 < recipe.fused_pairs <= recipe.batch_size or task in ("vqa", "nlvr2", "ve")  # these have no such share
    need(fits, f"fused_pairs={recipe.fused_pairs} must lie in 1..batch_size={recipe.batch_size}")
    for key in ("accumulate", "log_every", "passes", "rank_timeout"):
        need(getattr(recipe, key) >= 1, f"{key}={getattr(recipe, key)} must be at least 1")
    for key in ("queue", "workers", "max_skipped", "checkpoint_every", "gauge_every", "valid_images", "views"):
        need(getattr(recipe, key) >= 0, f"{key}={getattr(recipe, key)} must not be negative")
    share = recipe.bare_name
    need(
        share is None or 0 <= share <= 1,
        f"bare_name={share} must lie in [0, 1], or be null to draw evenly from all captions",
    )
    for key in ("momentum", "distillation", "ema", "hold_out"):
        need(0 <= getattr(recipe, key) < 1, f"{key}={getattr(recipe, key)} must lie in [0, 1)")
    need(
        recipe.baseline is None or recipe.baseline in BASELINES,
        f"baseline={recipe.baseline!r} is not one of {', '.join(BASELINES)}",
    )
    need(recipe.clip > 0, f"clip={recipe.clip} must be positive")
    need(recipe.queue > 0 or not recipe.distillation, "distillation needs the momentum encoders: set queue above 0")
    if isinstance(recipe, TaskRecipe):
        _check_task(recipe, need)


def _has_weights(model: str) -> bool:
    return Path(model).is_dir() and any(Path(model).glob("*.safetensors"))


def _check_phase(recipe: Recipe, i: int, need: Callable[[bool, str], None]) -> None:
    phase, task = recipe.phases[i], recipe.task if isinstance(recipe, TaskRecipe) else None
    objectives = NAMES if task is None else TASKS[task]
    groupings = GROUPINGS if task in (None, "retrieval") else (*GROUPINGS, SINGLE)
    need(phase.grouping in groupings, f"phases[{i}].grouping={phase.grouping!r} is not one of {groupings}")
    need(phase.epochs > 0, f"phases[{i}].epochs={phase.epochs!r} must be positive")
    tau = phase.negative_temperature
    need(tau is None or tau > 0, f"phases[{i}].negative_temperature={tau!r} must be positive")
    unknown = sorted(set(phase.objectives) - set(objectives))
    need(not unknown, f"phases[{i}].objectives has {', '.join(unknown)}; the objectives are {', '.join(objectives)}")
    need(bool(phase.objectives), f"phases[{i}].objectives is empty")
    need(min(phase.objectives.values()) >= 0, f"phases[{i}].objectives={phase.objectives} has a negative weight")
    strange = sorted(set(phase.frozen) - {*PARTS, BACKBONE})
    need(not strange, f"phases[{i}].frozen has {', '.join(strange)}; the parts are {', '.join([*PARTS, BACKBONE])}")
    fixed = {"concrete", BACKBONE} & set(phase.frozen) and recipe.baseline is None
    need(
        bool(fixed) or not recipe.remember_features,
        f"remember_features needs a backbone that no phase trains: set phases.{i}.frozen to [{BACKBONE}]",
    )
    need(
        not (phase.concrete_only and "mvm" in phase.objectives),
        f"phases[{i}] is concrete_only but trains mvm, whose labels mean nothing while the spikes are not gated",
    )


def _check_task(recipe: TaskRecipe, need: Callable[[bool, str], None]) -> None:
    need(bool(recipe.data), "missing key data: the name of the data set")
    need(recipe.answers_minimum >= 1, f"answers_minimum={recipe.answers_minimum} must be at least 1")
    for key in ("train_items", "valid_items"):
        need(getattr(recipe, key) >= 0, f"{key}={getattr(recipe, key)} must not be negative")
    need(recipe.start is None, f"start={recipe.start!r}: fine-tuning starts from a model: set model to its folder")
    need(recipe.stdp is None, "stdp is a stage of pre-training: remove it")
    if recipe.task == "retrieval":
        for key in ("train_items", "valid_items"):
            need(not getattr(recipe, key), f"{key}={getattr(recipe, key)} is not for retrieval: set it to 0")
        return
    need(
        recipe.passes == 1,
        f"passes={recipe.passes}: an item has one text, so that more passes are more epochs: set it to 1",
    )
    groupings = {phase.grouping for phase in recipe.phases}
    need(SINGLE not in groupings or len(groupings) == 1, "grouping must be single in all phases or in none")
    need(
        "similar" not in groupings or (recipe.weights == PRETRAINED and recipe.baseline is None),
        "grouping: similar compares the ITC embeddings of a pre-trained model: set weights to pretrained and baseline "
        "to null, or set grouping to single",
    )
    need(
        recipe.augmentation == "none",
        "augment changes colors and positions, on which answers depend: set augment to false",
    )
    need(not recipe.queue, f"queue={recipe.queue} belongs to ITC: set it to 0")
    need(not recipe.max_skipped, f"max_skipped={recipe.max_skipped}: an item is useless without its image: set it to 0")
