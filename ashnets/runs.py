"""Training by a recipe: choose the kind of run, open its data, and run it.

The loop (:mod:`ashnets.training.run`) does not depend on its subclasses; tasks and baselines define theirs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ashnets.baselines.starting import HEADS
from ashnets.data.joined import open_joined
from ashnets.data.sources.opening import Source, open_source
from ashnets.errors import ConfigurationError, MissingExtraError
from ashnets.files import JsonObject
from ashnets.tasks.data import TaskData, open_task_data
from ashnets.training.memory import keep_freed_memory
from ashnets.training.recipe import Recipe, TaskRecipe, load_recipe
from ashnets.training.watching import watched
from ashnets.words import command
from ashnets.zoo.registry import recipe_path

try:
    from ashnets.baselines.training import BaselineRun, BaselineTaskRun
    from ashnets.tasks.finetuning import RetrievalRun, TaskRun
    from ashnets.training.run import Run, deterministic
except ImportError as error:
    if error.name != "accelerate":
        raise
    raise MissingExtraError("Training needs accelerate: pip install 'ashnets[train]'.") from None

log = logging.getLogger("ashnets.data")
PICTOGRAMS, JOINED = "data/pictograms", "data"  # where corpora are searched by default


def train(
    recipe: str | os.PathLike,
    *,
    output: str | os.PathLike,
    corpus: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> JsonObject:
    """Pre-train by a recipe, in this process or in each process of torchrun.

        ashnets.train("tiny-pictograms", output="runs/tiny")

    The folder ``output`` receives ``recipe.yaml``, ``environment.json``, ``log.jsonl`` (epochs), ``steps.jsonl``,
    ``events/`` (TensorBoard), ``plots/``, ``checkpoints/``, ``phase-NAME/`` after every phase, and at the end
    ``model/``: safetensors in float16, configuration, processor, recipe, log and ``training.json``, the record of the
    run.

    Args:
        recipe: the name of a bundled recipe, or a file.
        output: folder of the run.
        corpus: images with captions, in any form that ``open_source`` accepts; ``data/pictograms`` by default. For a
            recipe that joins published sets, the folder that theirs are relative to; ``data`` by default.
        overrides: ``key=value`` for the recipe.
        resume: continue from the last checkpoint of ``output``.
        dry_run: check recipe, images and initial weights, measure a micro-batch of each phase, write nothing.
        progress: show a progress bar.

    Returns:
        The record of the run; of a dry run, what it will do and need.

    Raises:
        ConfigurationError, DataError, TrainingError: with file, key, value and remedy.
    """
    path = recipe_path(recipe)
    settings = load_recipe(path, list(overrides))
    if isinstance(settings, TaskRecipe):
        again = command("finetune", settings.task, recipe, "--data", "FOLDER", "--output", output)
        raise ConfigurationError(f"{path} fine-tunes on a task: run it with `{again}`")
    kind = run_class(settings)
    return _run(kind, settings, training_source(settings, corpus), output, resume, dry_run, progress)


def finetune(
    task: str,
    recipe: str | os.PathLike,
    *,
    data: str | os.PathLike,
    output: str | os.PathLike,
    images: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    dry_run: bool = False,
    progress: bool = True,
) -> JsonObject:
    """Fine-tune on a task by a recipe, in this process or in each process of torchrun.

        ashnets.finetune("vqa", "finetune-easy-vqa", data="site-packages/easy_vqa", output="runs/easy-vqa")

    Args:
        task: ``vqa``, ``nlvr2``, ``ve`` or ``retrieval``; the recipe must be for it.
        recipe: the name of a bundled recipe, or a file.
        data: folder of the recipe's data set.
        output: folder of the run, with the same files as in pre-training; ``from_pretrained`` and ``evaluate`` load
            ``model/``.
        images: folder of the images, if they are not in ``data``.
        overrides: ``key=value`` for the recipe.
        resume: continue from the last checkpoint of ``output``.
        dry_run: check recipe, items and starting weights, measure the largest micro-batch of each phase, write
            nothing.
        progress: show a progress bar.

    Returns:
        The record of the run; of a dry run, what it will do and need.

    Raises:
        ConfigurationError, DataError, WeightsError, TrainingError: with file, key, value and remedy.
    """
    path = recipe_path(recipe)
    settings = load_recipe(path, list(overrides))
    if not isinstance(settings, TaskRecipe):
        again = command("train", recipe, "--corpus", data, "--output", output)
        raise ConfigurationError(f"{path} has no key task, so it pre-trains: run it with `{again}`")
    if settings.task != task:
        raise ConfigurationError(f"{path} is for task {settings.task}, not for {task}")
    if settings.baseline and (settings.baseline, task) not in HEADS:
        raise ConfigurationError(
            f"{path}: baseline={settings.baseline} has no head for task {task}: fine-tune it on vqa"
        )
    kind = run_class(settings)
    return _run(kind, settings, open_task_data(settings.data, data, images), output, resume, dry_run, progress)


def training_source(recipe: Recipe, corpus: str | os.PathLike | None = None) -> Source:
    """The images and captions of a pre-training recipe; ``corpus`` as for `train`.

    Raises:
        ConfigurationError, DataError: with key, file and remedy.
    """
    if isinstance(recipe.corpus, dict):
        source, counts = open_joined(recipe.corpus, JOINED if corpus is None else corpus)
        for note in counts["notes"]:
            log.warning(note)
        return source
    return open_source(PICTOGRAMS if corpus is None else corpus, recipe.hold_out)


def run_class(recipe: Recipe) -> type[Run]:
    """The class of run for a recipe."""
    if not isinstance(recipe, TaskRecipe):
        return BaselineRun if recipe.baseline else Run
    if recipe.baseline:
        return BaselineTaskRun
    return RetrievalRun if recipe.task == "retrieval" else TaskRun


def _run(
    kind: type[Run],
    recipe: Recipe,
    data: Source | TaskData,
    output: str | os.PathLike,
    resume: bool,
    dry_run: bool,
    progress: bool,
) -> JsonObject:
    if not torch.cuda.is_available():
        keep_freed_memory()
    with watched(recipe.rank_timeout):
        run = kind(recipe, data, Path(output), progress, None if dry_run else resume)
        with deterministic(run.device):
            return run.plan() if dry_run else run.train()
