"""Fine-tuning on a task, by the loop of pre-training: the same folder, logs, checkpoints, optimizers and resume.

Questions, pairs and hypotheses are learned by their head's loss (`TaskLearner`); retrieval by ITC and ITM, as in
pre-training, on captioned images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ashnets.configuration import AshNetsConfig
from ashnets.data.learned import merged, read_sketch, sketch
from ashnets.evaluation.embedding import TaskImages, images_at_reset
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.prediction import Questions, predicted_labels
from ashnets.hub.resolving import resolve
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import (
    TaskData,
    as_source,
    drawn,
    require_images,
    require_kind,
    train_and_valid,
)
from ashnets.tasks.items import ItemBatch
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.tasks.starting import starting_model
from ashnets.tasks.training_items import Items
from ashnets.training.distributed import shares
from ashnets.training.learner import Learner
from ashnets.training.pretrain import spiking_figures
from ashnets.training.recipe import Phase, TaskRecipe
from ashnets.training.run import Run


class _FineTuning(Run):
    """What the two kinds of runs share."""

    recipe: TaskRecipe

    def __init__(self, recipe: TaskRecipe, source: Any, *arguments: Any) -> None:
        super().__init__(recipe, source, *arguments)
        begun = recipe.weights == "pretrained" and recipe.baseline is None
        self.learned_before = (read_sketch(Path(resolve(recipe.model))) or []) if begun else []

    def _learned(self) -> list[str]:
        """See `Run._learned`; the images of items are known by the name of their data set."""
        return self.learned_before

    def plan(self) -> dict[str, Any]:
        """See `Run.plan`; what is counted are items, which a pass may show several images of."""
        found = super().plan()
        about = {"recipe": found.pop("recipe"), "task": self.recipe.task, "data": self.recipe.data}
        return {**about, **{"items" if key == "images" else key: value for key, value in found.items()}}

    def _record(self) -> dict[str, Any]:
        return {**super()._record(), "task": self.recipe.task, "data": self.recipe.data, "train": self.recipe.train}


class RetrievalRun(_FineTuning):
    """Retrieval: ITC and ITM on captioned images; the validation searches by each image's first caption."""

    def __init__(self, recipe: TaskRecipe, data: TaskData, *arguments: Any) -> None:
        super().__init__(recipe, as_source(data, [*recipe.train, recipe.valid]), *arguments)
        self.data_name = data.title

    def _learned(self) -> list[str]:
        return merged(self.learned_before, sketch(self.images.train))

    def _model(self, source: Any) -> tuple[AshNetsConfig, AshNetsProcessor, Any, list[str]]:
        rows = (row for split in self.recipe.train for row in source.split(split)["captions"].to_pylist())
        return starting_model(self.recipe, (caption for row in rows for caption in row), {})


class TaskRun(_FineTuning):
    """A task with a classifier."""

    def _learned_from(self) -> dict[str, Any]:
        return {"name": self.data_name, "splits": list(self.recipe.train), "items": len(self.items)}

    def _model(self, source: Any) -> tuple[AshNetsConfig, AshNetsProcessor, Any, list[str]]:
        recipe, kind = self.recipe, CLASSIFICATIONS[self.recipe.task]
        train, valid, said = train_and_valid(source, recipe.train, recipe.valid, recipe.hold_out)
        for records in (train, valid):
            require_kind(source, records, kind.kind, recipe.task)
        self.task = kind.of_training(train, recipe.answers_minimum)
        self.items = [record for record in train if self.task.can_learn(record)]
        left = len(train) - len(self.items)
        said += [f"left out: {left} items whose answer is none of {len(self.task.labels)}"] if left else []
        self.items = drawn(self.items, recipe.train_items, recipe.seed)
        self.valid = drawn(valid, recipe.valid_items, recipe.seed)
        require_images(source, [*self.items, *self.valid])
        self.data = source
        texts = map(self.task.text, self.items)
        config, processor, model, origins = self._starting(texts, self.task.configuration())
        self.task.start(model)
        return config, processor, model, [*origins, *said]

    def _starting(self, texts: Any, keys: dict[str, Any]) -> tuple[AshNetsConfig, AshNetsProcessor, Any, list[str]]:
        return starting_model(self.recipe, texts, keys)

    def _images(self, source: Any) -> Items:
        return Items(self.recipe, self.config, self.task, source, self.items, self.processor)

    def _learner(self, model: Any) -> Learner:
        return TaskLearner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)

    def _valid_images(self, readable: list[int], count: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        names = list(dict.fromkeys(name for record in self.valid for name in record.images))
        return images_at_reset(TaskImages(self.data, names, self.processor), range(min(count, len(names))))

    def _validate(self, readable: list[int], phase: Phase) -> dict[str, float]:
        predicted = predicted_labels(
            self.learner.published.eval(),
            Questions(self.task, self.data, self.valid, self.processor),
            Variant("answering", concrete_only=phase.concrete_only),
            EvaluationOptions(progress=self.progress, workers=self.recipe.workers),
        )
        scores = self.task.scores(self.valid, predicted)
        return {"valid_accuracy": round(sum(scores) / len(scores), 4)}


class TaskStep(nn.Module):
    """The loss of a task's head as a module, so that DistributedDataParallel can wrap it."""

    def __init__(self, model: Any, name: str, concrete_only: bool) -> None:
        super().__init__()
        self.model, self.name, self.concrete_only = model, name, concrete_only

    def forward(self, batch: ItemBatch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The loss, weighted so that its mean over ranks is that of all items; and figures."""
        out = self.model(**batch.inputs(), concrete_only=self.concrete_only)
        labels, best = batch.labels, out.logits.detach().argmax(1)
        assert labels is not None
        right = labels.gather(1, best.unsqueeze(1)) if labels.dim() == 2 else labels == best
        figures = {"accuracy": right.float().mean()}
        weight = shares(torch.tensor([float(len(best))], device=out.loss.device))[0]
        return {self.name: out.loss * weight}, {**figures, **spiking_figures(out.visual)}


class TaskLearner(Learner):
    """The learner of pre-training with a task's loss."""

    def step_of(self, phase: Phase) -> nn.Module:
        """See `Learner.step_of`."""
        return TaskStep(self.model, next(iter(phase.objectives)), phase.concrete_only)

    def forward(self, batch: ItemBatch, gradients: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor], None]:
        """The loss of the task, what is logged of it, and no keys; see `Learner.forward`."""
        phase, step = self._prepared
        with self.autocast():
            losses, figures = step(batch.to(self.device))
            if gradients:
                self.measure_gradients(losses, phase)
            loss = torch.stack([weight * losses[name] for name, weight in phase.objectives.items()]).sum()
        return loss, {"loss": loss.detach(), **figures}, None
