"""The runs of a row and a seed: one pre-training, and the fine-tuning of each task from it.

A run lies in a folder that its recipe names: rows of different experiments with the same recipe share it.

    runs/lab-pictograms-1f0c9a3b/seed-0/pretrain                     a run of `ashnets train`
    runs/lab-pictograms-1f0c9a3b/seed-0/finetune-nlvr2-77ab02de      a run of `ashnets finetune`
    runs/lab-pictograms-1f0c9a3b/seed-0/measured-nlvr2-09d1c7e2.json what was measured of it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ashnets.evaluation.record import TRAINING_RECORD
from ashnets.experiments.deriving import as_overrides, configuration_of, row_overrides
from ashnets.files import JsonObject
from ashnets.training.folder import MODEL
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import SINGLE, Recipe, TaskRecipe
from ashnets.words import command
from ashnets.zoo.experiment_files import RowFile, ScaleFile, TaskFile
from ashnets.zoo.registry import recipe_path

RUNS, PRETRAIN = "runs", "pretrain"


@dataclass(frozen=True)
class Stage:
    """One run: a recipe, its overrides, its folder.

    Attributes:
        task: None for pre-training.
        data, images: of the run.
        estimated: overrides of a dry run, which has no pre-trained model to start from.
    """

    recipe: str
    overrides: tuple[str, ...]
    folder: Path
    data: Path
    task: str | None = None
    images: Path | None = None
    estimated: tuple[str, ...] = ()

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.folder / MODEL

    @property
    def begun(self) -> bool:
        return (self.folder / "recipe.yaml").is_file()

    @property
    def finished(self) -> bool:
        return (self.model / TRAINING_RECORD).is_file()

    def settings(self) -> Recipe:
        """The recipe with the overrides."""
        return load_recipe(recipe_path(self.recipe), list(self.overrides))

    def command(self) -> str:
        """The command line that starts this run alone."""
        words = ["train"] if self.task is None else ["finetune", self.task]
        words += [self.recipe, "--corpus" if self.task is None else "--data", str(self.data)]
        words += ["--images", str(self.images)] if self.images is not None else []
        words += ["--output", str(self.folder), *(word for one in self.overrides for word in ("--set", one))]
        return command(*words)


@dataclass(frozen=True)
class Measured:
    """A task of a unit: what is measured, after which run, and the file of the result."""

    task: TaskFile
    stage: Stage
    file: Path
    place: Path
    images: Path | None


@dataclass(frozen=True)
class Unit:
    """The runs of a row and a seed."""

    row: RowFile
    seed: int
    folder: Path
    pretraining: Stage
    measured: tuple[Measured, ...]

    @property
    def stages(self) -> list[Stage]:
        """All runs, without repetition, in their order."""
        return list(dict.fromkeys([self.pretraining, *(one.stage for one in self.measured)]))


def unit_of(
    row: RowFile, seed: int, scale: ScaleFile, tasks: list[TaskFile], data: Path, output: Path, devices: int = 1
) -> Unit:
    """The runs of a row and a seed at a scale.

    Raises:
        ConfigurationError: a change of the row that a recipe does not allow.
    """
    path = recipe_path(scale.recipe)
    changes = {**scale.changes, **row.changes_at(scale.like), "seed": seed}
    overrides = row_overrides(path, changes, row.without, devices)
    recipe = load_recipe(path, overrides)
    folder = output / RUNS / f"{recipe.name}-{_digest(recipe)}" / f"seed-{seed}"
    pretraining = Stage(scale.recipe, tuple(overrides), folder / PRETRAIN, data / scale.corpus)
    measured = []
    for task in tasks:
        images = None if task.images is None else data / task.images
        stage = pretraining
        if task.recipe is not None:
            grouping = recipe.phases[-1].grouping  # retrieval is learned from the same batches as in pre-training
            tuning = {"phases.0.grouping": grouping} if task.task == "retrieval" else row.tuning
            changes = {**task.changes, **tuning}
            stage = _finetuning(task, changes, recipe, folder, (data / task.folder, images), devices)
        about = [stage.folder.name, task.data, task.split, task.sample]
        file = folder / f"measured-{task.name}-{_hash(about)}.json"
        measured.append(Measured(task, stage, file, data / task.folder, images))
    return Unit(row, seed, folder, pretraining, tuple(measured))


def _finetuning(
    task: TaskFile,
    changes: Mapping[str, object],
    pretrained: Recipe,
    folder: Path,
    places: tuple[Path, Path | None],
    devices: int,
) -> Stage:
    assert task.recipe is not None
    path = recipe_path(task.recipe)
    changes = {**changes, "seed": pretrained.seed, "model": str(folder / PRETRAIN / MODEL)}
    overrides = row_overrides(path, changes, (), devices, configuration_of(pretrained))
    recipe = load_recipe(path, overrides)
    # a dry run starts as pre-training does: it costs the same
    start: JsonObject = {"model": pretrained.model, "weights": "initial"}
    for key in ("transformer_weights", "vocabulary", "backbone_weights"):
        start[key] = getattr(pretrained, key)
    start |= {f"changes.{key}": value for key, value in pretrained.changes.items()}
    if task.task != "retrieval":  # similar groups need trained weights; random ones cost the same
        start |= {f"phases.{i}.grouping": "random" for i, one in enumerate(recipe.phases) if one.grouping != SINGLE}
    return Stage(
        task.recipe,
        tuple(overrides),
        folder / f"{recipe.name}-{_digest(recipe)}",
        places[0],
        task.task,
        places[1],
        (*overrides, *as_overrides(start)),
    )


def _digest(recipe: Recipe) -> str:
    """Of everything that a recipe says but its seed, and the place of the model that it starts from."""
    told = recipe.to_dict()
    told.pop("seed")
    if isinstance(recipe, TaskRecipe):
        told.pop("model")
    return _hash(told)


def _hash(told: object) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]
