"""Fine-tuning on a task in the loop of pre-training: the same folder, logs, checkpoints, optimizers and resume.

Questions, image pairs and hypotheses are trained with the loss of their head (`TaskLearner`). Retrieval is trained on
captioned images with ITC and ITM, as in pre-training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ashnets.evaluation.embedding import TaskImages, images_at_reset
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.prediction import Questions, predicted_labels
from ashnets.files import JsonObject
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.tasks.data import (
    TaskData,
    as_source,
    drawn,
    require_images,
    require_kind,
    train_and_valid,
)
from ashnets.tasks.items import ItemBatch, answer
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.tasks.starting import starting_model
from ashnets.tasks.training_items import Items
from ashnets.training.closing import close_classification
from ashnets.training.distributed import shares
from ashnets.training.learner import Learner
from ashnets.training.pretrain import spiking_figures
from ashnets.training.recipe import Phase, TaskRecipe
from ashnets.training.run import Run
from ashnets.training.setup import Started


class _FineTuning(Run):
    """The base of both kinds of runs."""

    recipe: TaskRecipe

    def plan(self) -> JsonObject:
        """See `Run.plan`; it counts items, which may have several images each."""
        found = super().plan()
        about = {"recipe": found.pop("recipe"), "task": self.recipe.task, "data": self.recipe.data}
        return {**about, **{"items" if key == "images" else key: value for key, value in found.items()}}

    def _record(self) -> JsonObject:
        return {**super()._record(), "task": self.recipe.task, "data": self.recipe.data, "train": self.recipe.train}


class RetrievalRun(_FineTuning):
    """Retrieval: ITC and ITM on captioned images; validation uses the first caption of each image."""

    def __init__(self, recipe: TaskRecipe, data: TaskData, *arguments: Any) -> None:
        super().__init__(recipe, as_source(data, [*recipe.train, recipe.valid]), *arguments)
        self.data_name = data.title

    def _model(self, source: Any) -> Started:
        rows = (row for split in self.recipe.train for row in source.split(split)["captions"].to_pylist())
        return starting_model(self.recipe, (caption for row in rows for caption in row), {})


class TaskRun(_FineTuning):
    """A task with a classifier."""

    def _learned(self) -> list[str]:
        """See `Run._learned`; the record names the data set instead of the images of its items."""
        return self.learned_before

    def _learned_from(self) -> JsonObject:
        return {"name": self.data_name, "splits": list(self.recipe.train), "items": len(self.items)}

    def _model(self, source: Any) -> Started:
        recipe, kind = self.recipe, CLASSIFICATIONS[self.recipe.task]
        train, valid, said = train_and_valid(source, recipe.train, recipe.valid, recipe.hold_out)
        for records in (train, valid):
            require_kind(source, records, kind.kind, recipe.task)
        # answers are counted over whole splits, so that they do not depend on what is held out
        counted = [record for split in recipe.train for record in source.records(split)]
        self.task = kind.of_training(counted, recipe.answers_minimum)
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

    def _starting(self, texts: Iterable[str], keys: JsonObject) -> Started:
        return starting_model(self.recipe, texts, keys)

    def _images(self, source: Any) -> Items:
        return Items(self.recipe, self.config, self.task, source, self.items, self.processor)

    def _learner(self, model: AshNetsPreTrainedModel) -> Learner:
        return TaskLearner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)

    def _valid_images(self, readable: list[int], count: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        names = list(dict.fromkeys(name for record in self.valid for name in record.images))
        return images_at_reset(TaskImages(self.data, names, self.processor), range(min(count, len(names))))

    def _held_out(self) -> int:
        return len(self.valid)

    def _close(self, readable: list[int], heading: tuple[str, str]) -> JsonObject:
        options = EvaluationOptions(
            progress=self.progress, workers=self.recipe.workers, variants=False, seed=self.recipe.seed
        )
        asked = Questions(self.task, self.data, self.valid, self.processor)
        model = self.learner.published.eval()
        return close_classification(model, asked, self.items, heading, self.folder.path, options)

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

    def __init__(self, model: nn.Module, name: str, concrete_only: bool) -> None:
        super().__init__()
        self.model, self.name, self.concrete_only = model, name, concrete_only

    def forward(self, batch: ItemBatch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The loss, weighted so that its mean over ranks is the mean over all items; and statistics for the log."""
        out = answer(self.model, batch, concrete_only=self.concrete_only)
        labels = batch.labels
        assert labels is not None and out.logits is not None and out.loss is not None
        best = out.logits.detach().argmax(1)  # (B,)
        right = labels.gather(1, best.unsqueeze(1)) if labels.dim() == 2 else labels == best
        figures = {"accuracy": right.float().mean()}
        weight = shares(torch.tensor([float(len(best))], device=out.loss.device))[0]
        return {self.name: out.loss * weight}, {**figures, **spiking_figures(out.visual)}


class TaskLearner(Learner):
    """The learner of pre-training with the loss of a task."""

    def step_of(self, phase: Phase) -> nn.Module:
        """See `Learner.step_of`."""
        return TaskStep(self.model, next(iter(phase.objectives)), phase.concrete_only)

    def forward(self, batch: ItemBatch, gradients: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor], None]:
        """The loss of the task, its statistics for the log, and no keys; see `Learner.forward`."""
        phase, step = self._prepared
        with self.autocast():
            losses, figures = step(batch.to(self.device))
            if gradients:
                self.measure_gradients(losses, phase)
            loss = torch.stack([weight * losses[name] for name, weight in phase.objectives.items()]).sum()
        return loss, {"loss": loss.detach(), **figures}, None
