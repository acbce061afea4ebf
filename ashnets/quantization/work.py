"""The data and measurements of a quantization; for a pre-trained checkpoint, captioned images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator

from ashnets.data.loading import load_epoch
from ashnets.data.pairs import Pairs
from ashnets.errors import TrainingError
from ashnets.evaluation.embedding import images_at_reset
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.evaluation.retrieval import RetrievalSet, rank
from ashnets.files import JsonObject
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.tdbn import calibrating
from ashnets.processor import AshNetsProcessor
from ashnets.training.estimate import estimate_step
from ashnets.training.images import TrainingImages
from ashnets.training.journal import Progress
from ashnets.training.learner import Learner, NotFinite
from ashnets.training.loader import CALIBRATED, calibration_batches
from ashnets.training.means import Means
from ashnets.training.optim import factor, set_learning_rates
from ashnets.training.precision import with_precision
from ashnets.training.pretrain import Batch
from ashnets.training.recipe import Phase, Recipe


class Quantizing:
    """Calibration, fine-tuning and measurement of a pre-trained checkpoint.

    Args:
        recipe: with one phase.
        source: images with captions; a subclass takes other data.
        split: for the measurements.

    Attributes:
        head: the head's name, as ``from_pretrained`` takes it.
        metric: the report's key for the result of `evaluate`.
        items: the plan's key for the number of training items.
    """

    head = "pretraining"
    metric = "retrieval"
    items = "images"

    def __init__(
        self,
        recipe: Recipe,
        model: AshNetsPreTrainedModel,
        processor: AshNetsProcessor,
        source: Any,
        split: str,
        steps: int,
        progress: bool,
    ) -> None:
        self.float_model, self.processor = model, processor
        self.split, self.steps, self.progress = split, steps, progress
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.recipe, _ = with_precision(recipe, model.config, self.accelerator.device)
        self.phase: Phase = self.recipe.phases[0]
        if self.accelerator.num_processes > 1:
            raise TrainingError("quantization runs in one process: start it without torchrun")
        self.learner: Learner | None = None
        self.images: Any = self._images(source)

    def _images(self, source: Any) -> Any:
        """The training images; also sets `self.held_out`, the pairs for the measurements."""
        config = self.float_model.config
        self.held_out = Pairs(source, [self.split], config.image_size)
        return TrainingImages(self.recipe, config, source, self.processor.tokenizer, lambda *_: None)

    @property
    def published(self) -> AshNetsPreTrainedModel:
        assert self.learner is not None
        return self.learner.published

    def _learner(self, model: AshNetsPreTrainedModel) -> Learner:
        self.learner = self._new_learner(model)
        return self.learner

    def _new_learner(self, model: AshNetsPreTrainedModel) -> Learner:
        return Learner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)

    def about(self) -> JsonObject:
        """The report's entries on the task."""
        return {}

    def evaluate(self, model: AshNetsPreTrainedModel, concrete_only: bool = False) -> JsonObject:
        """The metric on the split, each image from a reset state."""
        variant, options = Variant(concrete_only=concrete_only), EvaluationOptions(progress=self.progress)
        measured = RetrievalSet.of_pairs(self.held_out)
        return rank(model.eval(), self.processor.tokenizer, measured, variant, options).to_list()[0]

    def evaluate_spikes(self, model: AshNetsPreTrainedModel) -> JsonObject:
        """Retrieval of texts by spikes alone; empty without a STUA head."""
        if not hasattr(model, "stua"):
            return {}
        measured, options = RetrievalSet.of_pairs(self.held_out), EvaluationOptions(progress=self.progress)
        variant = Variant(spikes="alone")
        found = rank(model.eval(), self.processor.tokenizer, measured, variant, options).to_list()[0]
        way = "image_to_text"
        return {"images": found["images"], "texts": found["texts"], **found[way], "chance": found["chance"][way]}

    @property
    def images_to_compare(self) -> int:
        """Number of images of the split."""
        return len(self.held_out)

    def input_spikes(self, count: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Batches of the first ``count`` images of the split, as `spikes_changed` takes them."""
        return images_at_reset(self.held_out, range(min(count, len(self.held_out))))

    def plan(self, model: AshNetsPreTrainedModel) -> JsonObject:
        """What the fine-tuning will do and need, measured on one real step."""
        learner = self._learner(model)
        learner.prepare(self.phase)
        batch = self.images.batches(self.images.plan(self.images.random_groups(0))[:1], 0).read(0)
        return {
            "recipe": self.recipe.name,
            "phase": self.phase.name,
            self.items: len(self.images.train),
            "steps": self.steps,
            **estimate_step(learner, batch, len(batch.image_ids), self.steps * self.recipe.accumulate),
        }

    def calibrate(self, model: AshNetsPreTrainedModel, count: int) -> int:
        """Compute the running statistics as training does, over augmented images in groups; returns their number.

        Images on white, each from a reset state, would have other statistics than the images of the training.
        """
        vision, seen = model.ashnets.vision, 0
        with calibrating(vision.abstract_encoder):
            for batch in calibration_batches(self.images, count, self.recipe.workers, pin=False):
                pixels, keys, group = batch.shown()
                vision.abstract_encoder(vision.sample(pixels, keys), group)
                seen += len(batch.image_ids)
        return seen

    def _calibrate_published(self, learner: Learner) -> None:
        """Update the running statistics of all norms but those of the spiking encoder, which are fixed."""
        learner.calibrate(
            self.phase,
            calibration_batches(self.images, CALIBRATED, self.recipe.workers, pin=learner.device.type == "cuda"),
        )

    def train(self, model: AshNetsPreTrainedModel) -> list[float]:
        """Run all steps; returns the loss of each."""
        learner, losses = self._learner(model), []
        bar = Progress(
            self.steps, description=f"fine-tuning {self.phase.name}", device=learner.device, enabled=self.progress
        )
        batches = self._batches(learner)
        with bar:
            for step in range(self.steps):
                means = Means()
                several = [next(batches) for _ in range(self.recipe.accumulate)]
                epoch = self.epoch
                scale = factor(self.recipe.schedule, step, epoch, self.steps)
                set_learning_rates(learner.optimizers, self.recipe, scale)
                try:
                    learner.optimize(several, step, means)
                except NotFinite as error:
                    images = ", ".join(name for batch in several for name in batch.image_ids[:3])
                    raise TrainingError(
                        f"{error} became infinite or NaN at step {step} (images {images} …): lower "
                        "optimizers.*.lr, or set precision=fp32"
                    ) from None
                for batch in several:
                    self.images.note(batch.skipped)
                losses.append(means.flush()["loss"])
                bar.advance(sum(len(batch.image_ids) for batch in several), losses[-1])
        learner.check_weights()
        self._calibrate_published(learner)
        return [round(loss, 4) for loss in losses]

    def _batches(self, learner: Learner) -> Iterator[Batch]:
        """Batches of epoch after epoch, each grouped as the phase requires."""
        self.epoch = 0
        while True:
            if self.phase.grouping == "similar":
                if self.epoch:
                    self._calibrate_published(learner)
                groups, _ = self.images.similar_groups(
                    learner.published.eval(), self.epoch, self.phase, learner.autocast(), self.progress
                )
            else:
                groups = self.images.random_groups(self.epoch)
            learner.prepare(self.phase)
            planned = self.images.plan(groups)
            yield from load_epoch(
                self.images.batches(planned, self.epoch), 0, self.recipe.workers, pin=learner.device.type == "cuda"
            )
            self.images.share_notes()
            self.epoch += 1
