"""A fine-tuned checkpoint to one that computes in a chip's integers: as a pre-trained one, by its own task.

The stages are those of :mod:`ashnets.training.quantise`. Questions, pairs and hypotheses are learnt by their head's
loss and measured by their official metric; retrieval is learnt by ITC and ITM and measured by R@K. STUA's head is gone
after fine-tuning, so that what the spikes alone say of a text is not measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ashnets.errors import ConfigurationError
from ashnets.hub.resolving import resolve
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import TaskData, as_source, drawn, open_task_data, require_pictures, train_and_valid
from ashnets.tasks.finetuning import TaskLearner
from ashnets.tasks.items import Items, images_at_rest
from ashnets.tasks.predicting import predict, said_by
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.training.learner import Learner
from ashnets.training.quantise import carry_out, fine_tuning_recipe, float_model, require_new
from ashnets.training.quantise import quantise as quantise_pretrained
from ashnets.training.quantise_work import Quantising
from ashnets.training.recipe import TaskRecipe
from ashnets.zoo.registry import recipe_path

PICTOGRAMS = Path("data/pictograms")


def quantize(
    name: str | os.PathLike,
    *,
    output: str | os.PathLike,
    corpus: str | os.PathLike | None = None,
    data: str | os.PathLike | None = None,
    pictures: str | os.PathLike | None = None,
    recipe: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    steps: int = 200,
    calibration: int = 1024,
    compared: int = 256,
    split: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Make the spiking branch of a model integer: of one that was pre-trained, or of one that was fine-tuned on a task.

        ashnets.quantize("ashnets-tiny", output="runs/tiny-int8", corpus="data/pictograms")

    Args:
        corpus: for a checkpoint of pre-training, pictures with captions; ``data/pictograms`` by default.
        data: for one of a task, folder of the data set that its recipe names.
        pictures: where the pictures of ``data`` lie, if not there.
        recipe: the name of a bundled recipe, or a file; by default the checkpoint's own.
        calibration: training pictures, or items of a task.

    The other arguments, the result and what is raised are those of :func:`ashnets.training.quantise.quantise`; the
    report has the task's metrics under ``task`` for a head with a classifier.

    Raises:
        ConfigurationError: also where ``corpus``, ``data`` or ``pictures`` do not fit the recipe.
    """
    output, folder = Path(output), Path(resolve(name))
    recipe = None if recipe is None else recipe_path(recipe)
    require_new(output, dry_run)
    settings = fine_tuning_recipe(folder, recipe, list(overrides), steps)
    if not isinstance(settings, TaskRecipe):
        wrong = "--data" if data is not None else "--pictures" if pictures is not None else None
        if wrong:
            raise ConfigurationError(f"{wrong} is for a model that was fine-tuned on a task; {name} takes --corpus")
        return quantise_pretrained(
            str(name), output, corpus=Path(corpus or PICTOGRAMS), recipe=recipe, overrides=list(overrides), steps=steps,
            calibration=calibration, compared=compared, split=split, dry_run=dry_run, progress=progress,
        )  # fmt: skip
    if data is None or corpus is not None:
        raise ConfigurationError(
            f"{name} is fine-tuned on {settings.data} ({settings.task}): give its folder with --data, and no --corpus"
        )
    opened = open_task_data(settings.data, data, pictures)
    kind = QuantisingRetrieval if settings.task == "retrieval" else QuantisingTask
    model = float_model(str(name), folder, settings.task)
    processor = AshNetsProcessor.from_pretrained(folder)
    work = kind(settings, model, processor, opened, split or settings.valid, steps, progress)
    return carry_out(work, str(name), folder, output, calibration, compared, dry_run)


class QuantisingRetrieval(Quantising):
    """Retrieval on captioned pictures."""

    recipe: TaskRecipe
    head = "retrieval"

    def _pictures(self, source: TaskData) -> Any:
        return super()._pictures(as_source(source, [*self.recipe.train, self.recipe.valid, self.split]))

    def about(self) -> dict[str, Any]:
        """See `Quantising.about`."""
        return {"task": "retrieval", "data": self.recipe.data}


class QuantisingTask(Quantising):
    """A task with a classifier."""

    recipe: TaskRecipe
    metric = "metrics"
    items = "items"

    def _pictures(self, source: TaskData) -> Items:
        recipe, config = self.recipe, self.float_model.config
        self.head = recipe.task
        self.data, self.task = source, CLASSIFICATIONS[recipe.task].of_config(config)
        train, valid, _ = train_and_valid(source, recipe.train, recipe.valid, recipe.hold_out)
        learnt = [record for record in train if self.task.can_learn(record)]
        learnt = drawn(learnt, recipe.train_items, recipe.seed)
        measured: Sequence[Any] = valid if self.split == recipe.valid else source.records(self.split)
        self.measured = drawn(measured, recipe.valid_items, recipe.seed)
        require_pictures(source, [*learnt, *self.measured])
        self.names = list(dict.fromkeys(name for record in self.measured for name in record.pictures))
        return Items(recipe, config, self.task, source, learnt, self.processor)

    def _new_learner(self, model: Any) -> Learner:
        return TaskLearner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)

    def about(self) -> dict[str, Any]:
        """See `Quantising.about`."""
        return {"task": self.recipe.task, "data": self.recipe.data}

    def measure(self, model: Any, **options: Any) -> dict[str, Any]:
        """The task's official metrics."""
        logits = predict(
            model.eval(), self.task, self.data, self.measured, self.processor, workers=self.recipe.workers,
            progress=self.progress, **options,
        )  # fmt: skip
        return self.task.metrics(self.measured, said_by(self.task, logits))

    @property
    def pictures_to_compare(self) -> int:
        """How many pictures the measured items show."""
        return len(self.names)

    def input_spikes(self, count: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """See `Quantising.input_spikes`."""
        return images_at_rest(self.data, self.names[:count], self.processor)
