"""Training by a recipe: choose the kind of run, open its data, and run it.

The loop (:mod:`ashnets.training.run`) does not depend on its subclasses; tasks and baselines define theirs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ashnets.baselines.starting import HEADS
from ashnets.data.joined import open_joined
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import Source, open_source
from ashnets.errors import ConfigurationError, DataError, MissingExtraError, did_you_mean
from ashnets.files import JsonObject
from ashnets.tasks.data import TaskData, open_task_data
from ashnets.tasks.registry import TASKS
from ashnets.training.memory import keep_freed_memory
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import Recipe, TaskRecipe
from ashnets.training.telling import OWN, advice, end_told, interrupted, next_commands, plan_told
from ashnets.training.watching import watched
from ashnets.words import command, install
from ashnets.zoo.registry import recipe_path

try:
    from ashnets.baselines.training import BaselineRun, BaselineTaskRun
    from ashnets.tasks.finetuning import RetrievalRun, TaskRun
    from ashnets.training.determinism import deterministic
    from ashnets.training.run import Run
except ImportError as error:
    if error.name != "accelerate":
        raise
    raise MissingExtraError(f"Training needs accelerate: {install('train')}.") from None

log = logging.getLogger("ashnets.data")
DATA = Path("data")  # where corpora are searched by default


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
    ``validation/``, a page of examples, and ``model/``: safetensors in float16, configuration, processor, recipe, log
    and ``training.json``, the record of the run.

    Args:
        recipe: the name of a bundled recipe, or a file.
        output: folder of the run.
        corpus: images with captions, in any form that ``open_source`` accepts; by default ``data/NAME``, with
            the recipe's ``corpus`` as the name. For a recipe that joins published sets, the folder that theirs are
            relative to; ``data`` by default.
        overrides: ``key=value`` for the recipe.
        resume: continue from the last checkpoint of ``output``.
        dry_run: check recipe, images and initial weights, measure a micro-batch of each phase, write nothing.
        progress: show a progress bar.

    Returns:
        The record of the run, with ``validation``, the measures of the model on the held-out images; of a dry run,
        what it will do and need. ``told`` are the same in sentences, with the page of examples and what comes next.

    Raises:
        ConfigurationError, DataError, TrainingError: with file, key, value and remedy.
        KeyboardInterrupt: its message says how to go on.
    """
    path = recipe_path(recipe)
    settings = load_recipe(path, list(overrides))
    if isinstance(settings, TaskRecipe):
        again = command("finetune", settings.task, recipe, "--data", "FOLDER", "--output", output)
        raise ConfigurationError(f"{path} fine-tunes on a task: run it with `{again}`")
    given: list[str | os.PathLike] = [] if corpus is None else ["--corpus", corpus]
    with _interruptible(output, ["train", recipe, *given, "--output", output, *_set(overrides)], dry_run):
        source = training_source(settings, corpus)
        place = _default_place(settings) if corpus is None else corpus
        own = None
        if source.kind == "folder":
            (first,) = source.rows.slice(0, 1).to_pylist()
            own = (Path(place), first["file"], first["name"])
        further = next_commands(output, _evaluated(settings, Path(place)), own)
        result = _run(settings, source, output, resume, dry_run, progress, further)
        if dry_run and settings.name in OWN:
            result["told"] += advice(settings, Pairs(source, settings.train, 32), place, output)
        return result


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
        As `train`.

    Raises:
        ConfigurationError, DataError, WeightsError, TrainingError: with file, key, value and remedy.
        KeyboardInterrupt: its message says how to go on.
    """
    if task not in TASKS:
        raise ConfigurationError(f"task={task!r} is not one of {', '.join(TASKS)}.{did_you_mean(task, TASKS)}")
    path = recipe_path(recipe)
    settings = load_recipe(path, list(overrides))
    if not isinstance(settings, TaskRecipe):
        again = command("train", recipe, "--corpus", data, "--output", output)
        raise ConfigurationError(f"{path} has no key task, so it pre-trains: run it with `{again}`")
    if settings.task != task:
        raise ConfigurationError(f"{path} is for task {settings.task}, not for {task}: give another task or recipe")
    if settings.baseline and (settings.baseline, task) not in HEADS:
        raise ConfigurationError(
            f"{path}: baseline={settings.baseline} has no head for task {task}: fine-tune it on vqa"
        )
    at: list[str | os.PathLike] = [] if images is None else ["--images", images]
    words = ["finetune", task, recipe, "--data", data, *at, "--output", output, *_set(overrides)]
    with _interruptible(output, words, dry_run):
        found = open_task_data(settings.data, data, images)
        return _run(settings, found, output, resume, dry_run, progress, next_commands(output, [task, data, *at], None))


def training_source(recipe: Recipe, corpus: str | os.PathLike | None = None) -> Source:
    """The images and captions of a pre-training recipe; ``corpus`` as for `train`.

    Raises:
        ConfigurationError, DataError: with key, file and remedy.
    """
    if isinstance(recipe.corpus, dict):
        source, counts = open_joined(recipe.corpus, DATA if corpus is None else corpus)
        for note in counts["notes"]:
            log.warning(note)
        return source
    place = _default_place(recipe) if corpus is None else corpus
    if corpus is None and recipe.name in OWN and not Path(place).exists():
        raise DataError(
            f"{recipe.name} trains on your own images: give their folder, --corpus FOLDER ({place} does not exist)"
        )
    return open_source(place, recipe.hold_out)


def run_class(recipe: Recipe) -> type[Run]:
    """The class of run for a recipe."""
    if not isinstance(recipe, TaskRecipe):
        return BaselineRun if recipe.baseline else Run
    if recipe.baseline:
        return BaselineTaskRun
    return RetrievalRun if recipe.task == "retrieval" else TaskRun


def _default_place(recipe: Recipe) -> Path:
    return DATA if isinstance(recipe.corpus, dict) else DATA / recipe.corpus


def _evaluated(recipe: Recipe, place: Path) -> list[str | os.PathLike]:
    """Task and data on which `ashnets evaluate` measures a pre-trained model."""
    if not isinstance(recipe.corpus, dict):
        return ["retrieval", place]
    name = "coco-captions" if "coco-captions" in recipe.corpus else next(iter(recipe.corpus))
    return ["retrieval", place / recipe.corpus[name], "--dataset", name]


def _set(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@contextmanager
def _interruptible(output: str | os.PathLike, words: Sequence[str | os.PathLike], dry_run: bool) -> Iterator[None]:
    """Give an interruption a message that says how to go on; ``words`` are the command line of the run."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*([] if dry_run else [interrupted(output, words)])) from None


def _run(
    recipe: Recipe,
    data: Source | TaskData,
    output: str | os.PathLike,
    resume: bool,
    dry_run: bool,
    progress: bool,
    further: Sequence[str],
) -> JsonObject:
    """Run or plan; ``further`` are command lines that come after the run."""
    if not torch.cuda.is_available():
        keep_freed_memory()
    with watched(recipe.rank_timeout):
        run = run_class(recipe)(recipe, data, Path(output), progress, None if dry_run else resume)
        with deterministic(run.device):
            if dry_run:
                plan = run.plan()
                return {"told": plan_told(plan), **plan}
            record = run.train()
    return {"told": end_told(record["validation"], output, further), **record} if "validation" in record else record
