"""Quantize a pre-trained or fine-tuned checkpoint by its own task.

The stages are those of :mod:`ashnets.quantization.running`. Questions, image pairs and hypotheses are trained with the
loss of their head and measured with their official metric; retrieval is trained with ITC and ITM and measured by R@K.
A fine-tuned model has no STUA head, so retrieval of texts by spikes alone is not measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ashnets.errors import ConfigurationError
from ashnets.evaluation.embedding import TaskImages, images_at_reset
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.prediction import Questions, predicted_labels
from ashnets.files import JsonObject
from ashnets.hub.resolving import resolve
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.quantization.running import fine_tuning_recipe, float_model, require_new, run_quantization
from ashnets.quantization.running import quantize as quantize_pretrained
from ashnets.quantization.work import Quantizing
from ashnets.tasks.data import TaskData, as_source, drawn, open_task_data, require_images, train_and_valid
from ashnets.tasks.finetuning import TaskLearner
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.tasks.training_items import Items
from ashnets.training.learner import Learner
from ashnets.training.recipe import TaskRecipe
from ashnets.zoo.registry import recipe_path

PICTOGRAMS = Path("data/pictograms")


def quantize(
    name: str | os.PathLike,
    *,
    output: str | os.PathLike,
    corpus: str | os.PathLike | None = None,
    data: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    recipe: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    steps: int = 200,
    calibration: int = 1024,
    compared: int = 256,
    split: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> JsonObject:
    """Quantize the spiking branch of a pre-trained model, or of one that was fine-tuned on a task.

        ashnets.quantize("ashnets-tiny", output="runs/tiny-int8", corpus="data/pictograms")

    Args:
        corpus: for a pre-trained checkpoint, images with captions; ``data/pictograms`` by default.
        data: for a fine-tuned checkpoint, folder of the data set that its recipe names.
        images: folder of the images of ``data``, if they are elsewhere.
        recipe: the name of a bundled recipe, or a file; by default the checkpoint's own.
        calibration: training images, or items of a task.

    The other arguments, the result and the errors are those of :func:`ashnets.quantization.running.quantize`; for a
    head with a classifier the report has the task's metrics under ``metrics``.

    Raises:
        ConfigurationError: also if ``corpus``, ``data`` or ``images`` do not match the recipe.
    """
    output, folder = Path(output), Path(resolve(name))
    recipe = None if recipe is None else recipe_path(recipe)
    require_new(output, dry_run)
    settings = fine_tuning_recipe(folder, recipe, list(overrides), steps)
    if not isinstance(settings, TaskRecipe):
        wrong = "--data" if data is not None else "--images" if images is not None else None
        if wrong:
            raise ConfigurationError(f"{wrong} is for a model that was fine-tuned on a task; {name} takes --corpus")
        return quantize_pretrained(
            str(name),
            output,
            corpus=Path(corpus or PICTOGRAMS),
            recipe=recipe,
            overrides=list(overrides),
            steps=steps,
            calibration=calibration,
            compared=compared,
            split=split,
            dry_run=dry_run,
            progress=progress,
        )
    if data is None or corpus is not None:
        raise ConfigurationError(
            f"{name} was fine-tuned on {settings.data} ({settings.task}): give its folder with --data, without --corpus"
        )
    opened = open_task_data(settings.data, data, images)
    kind = QuantizingRetrieval if settings.task == "retrieval" else QuantizingTask
    model = float_model(str(name), folder, settings.task)
    processor = AshNetsProcessor.from_pretrained(folder)
    work = kind(settings, model, processor, opened, split or settings.valid, steps, progress)
    return run_quantization(work, str(name), folder, output, calibration, compared, dry_run)


class QuantizingRetrieval(Quantizing):
    """Retrieval on captioned images."""

    recipe: TaskRecipe
    head = "retrieval"

    def _images(self, source: TaskData) -> Any:
        return super()._images(as_source(source, [*self.recipe.train, self.recipe.valid, self.split]))

    def about(self) -> JsonObject:
        """See `Quantizing.about`."""
        return {"task": "retrieval", "data": self.recipe.data}


class QuantizingTask(Quantizing):
    """A task with a classifier."""

    recipe: TaskRecipe
    metric = "metrics"
    items = "items"

    def _images(self, source: TaskData) -> Items:
        recipe, config = self.recipe, self.float_model.config
        self.head = recipe.task
        self.data, self.task = source, CLASSIFICATIONS[recipe.task].of_config(config)
        train, valid, _ = train_and_valid(source, recipe.train, recipe.valid, recipe.hold_out)
        learned = [record for record in train if self.task.can_learn(record)]
        learned = drawn(learned, recipe.train_items, recipe.seed)
        measured = valid if self.split == recipe.valid else source.records(self.split)
        self.measured = drawn(measured, recipe.valid_items, recipe.seed)
        require_images(source, [*learned, *self.measured])
        self.names = list(dict.fromkeys(name for record in self.measured for name in record.images))
        return Items(recipe, config, self.task, source, learned, self.processor)

    def _new_learner(self, model: AshNetsPreTrainedModel) -> Learner:
        return TaskLearner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)

    def about(self) -> JsonObject:
        """See `Quantizing.about`."""
        return {"task": self.recipe.task, "data": self.recipe.data}

    def evaluate(self, model: AshNetsPreTrainedModel, concrete_only: bool = False) -> JsonObject:
        """The task's official metrics."""
        predicted = predicted_labels(
            model.eval(),
            Questions(self.task, self.data, self.measured, self.processor),
            Variant("answering", concrete_only=concrete_only),
            EvaluationOptions(workers=self.recipe.workers, progress=self.progress),
        )
        return self.task.metrics(self.measured, predicted)

    @property
    def images_to_compare(self) -> int:
        """Number of images of the measured items."""
        return len(self.names)

    def input_spikes(self, count: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """See `Quantizing.input_spikes`."""
        images = TaskImages(self.data, self.names, self.processor)
        return images_at_reset(images, range(min(count, len(images))))
