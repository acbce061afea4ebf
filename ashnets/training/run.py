"""A pre-training run: recipe and images in, a folder with model, logs, plots and checkpoints out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from safetensors import SafetensorError

from ashnets.data.learned import merged, read_sketch, sketch
from ashnets.environment import environment
from ashnets.errors import TrainingError
from ashnets.evaluation.embedding import images_at_reset
from ashnets.evaluation.options import SPIKES_ALONE, EvaluationOptions, Variant, ablated
from ashnets.evaluation.record import training_record
from ashnets.evaluation.retrieval import RetrievalSet, rank
from ashnets.files import JsonObject
from ashnets.hub.resolving import resolve
from ashnets.model.firing import MEASURED, layer_rates, rates_warnings
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.training.closing import close_retrieval
from ashnets.training.continuing import continued_model
from ashnets.training.estimate import estimate_step
from ashnets.training.folder import RunFolder
from ashnets.training.gauges import ablation_gauges, feature_gauges, inert_warnings
from ashnets.training.images import TrainingImages
from ashnets.training.learner import Learner
from ashnets.training.loop import Loop
from ashnets.training.optim import optimizer_doubts, warmup_steps
from ashnets.training.precision import with_precision
from ashnets.training.publish import write_model
from ashnets.training.recipe import PRETRAINED, Phase, Recipe
from ashnets.training.setup import Started, build_model, start_from
from ashnets.training.stdp import STDP, stdp_stage
from ashnets.words import counted, without_place

PRECISION_CHOSEN = "precision_chosen"  # key of the records, if the recipe leaves the precision to the machine


class Run(Loop):
    """One run. All random draws depend on (seed, epoch, image or step) only: a resumed run equals an uninterrupted one.

    On several ranks every process has one; only the first rank writes.

    Args:
        source: images and captions; a subclass may train on data of another kind.
        resume: True continues the run in ``output``, False starts one there; None does neither (a dry run).
    """

    def __init__(
        self, recipe: Recipe, source: Any, output: Path, progress: bool = True, resume: bool | None = None
    ) -> None:
        self.recipe, self.resume = recipe, bool(resume)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
                # also while the first rank validates and searches neighbors
                InitProcessGroupKwargs(timeout=timedelta(seconds=recipe.rank_timeout)),
            ],
        )
        self.device = self.accelerator.device
        self.ranks = self.accelerator.num_processes
        self.main: bool = self.accelerator.is_main_process
        self.progress = progress and self.main
        self.folder = RunFolder(output, recipe, self.ranks, self.main)
        checkpoint = None if resume is None else self.folder.check(resume)
        self.config, self.processor, model, self.origins = self._model(source)
        self.recipe, self.chosen = with_precision(self.folder.recipe, self.config, self.device)
        self.folder.recipe = recipe = self.recipe
        if resume:
            self.chosen = self.folder.environment().get(PRECISION_CHOSEN)
        self.images = self._images(source)
        self.data_name = source.title or Path(source.path).resolve().name
        begun = recipe.weights == PRETRAINED and recipe.baseline is None
        self.learned_before = (read_sketch(Path(resolve(recipe.model))) or []) if begun else []
        self.first_epoch = 0
        if recipe.start and checkpoint is None:
            self.first_epoch, origin = start_from(model, Path(recipe.start), recipe.phases)
            self.origins.append(origin)
        self.learner = self._learner(model)
        self.micro_batches = len(self.images.plan(self.images.random_groups(0)))  # of an epoch
        self.steps_an_epoch = -(-self.micro_batches // recipe.accumulate)
        self.step = self.first_epoch * self.steps_an_epoch
        self.pairs_seen = 0
        self.within = None
        if checkpoint is not None:
            self._resume_from(checkpoint)
        self.began = time.monotonic()

    def _model(self, source: Any) -> Started:
        recipe = self.recipe
        captions = (c for split in recipe.train for row in source.split(split)["captions"].to_pylist() for c in row)
        return (continued_model if recipe.weights == PRETRAINED else build_model)(recipe, captions)

    def _images(self, source: Any) -> Any:
        return TrainingImages(self.recipe, self.config, source, self.processor.tokenizer, self._left_out)

    def _learner(self, model: AshNetsPreTrainedModel) -> Learner:
        return Learner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)

    def plan(self) -> JsonObject:
        """What the run will do and need; the largest micro-batch of an epoch is measured, nothing is written."""
        recipe, learner = self.recipe, self.learner
        planned = self.images.plan(self.images.random_groups(0))
        largest = max(planned, key=lambda shares: max(len(share.indices) for share in shares))
        batch = self.images.batches([largest], 0).read(0)
        phases = {}
        for phase in recipe.phases:
            learner.prepare(phase)
            phases[phase.name] = estimate_step(learner, batch, recipe.batch_size, phase.epochs * self.micro_batches)
        return {
            "recipe": recipe.name,
            "model": recipe.model,
            "devices": self.ranks,
            "device": str(self.device),
            "images": len(self.images.train),
            "held_out": self._held_out(),
            "steps_per_epoch": self.steps_an_epoch,
            "epochs": recipe.epochs,
            "first_epoch": self.first_epoch,
            "precision": recipe.precision,
            "warmup_steps": warmup_steps(recipe.schedule, self._total_steps),
            "initialized": self.origins,
            **({"notes": notes} if (notes := self._notes()) else {}),
            "phases": phases,
        }

    def _held_out(self) -> int:
        """The number of validation items."""
        return min(len(self.images.valid), self.recipe.valid_images or len(self.images.valid))

    def _notes(self) -> list[str]:
        """What the run chose, and where it deviates from its recipe."""
        notes = [f"precision={self.recipe.precision}, chosen {self.chosen}"] if self.chosen else []
        asked, total = self.recipe.schedule.warmup_steps, self._total_steps
        capped = warmup_steps(self.recipe.schedule, total)
        if capped != asked:
            notes.append(
                f"warm-up over {counted(capped, 'step')}, not schedule.warmup_steps={asked}: "
                f"a tenth of the run's {total} at most"
            )
        return notes + optimizer_doubts(self.recipe, getattr(self.config, "backbone", ""))

    def train(self) -> JsonObject:
        """Run all remaining epochs, then publish the model; returns the record of the run."""
        recipe, self.began = self.recipe, time.monotonic()
        self.accelerator.wait_for_everyone()  # all ranks have checked the folder before the first one writes
        try:
            self.folder.open(self.resume, (self.first_epoch, self.step), self._environment())
            if self.folder.journal is not None and not self.resume:
                for note in self._notes():
                    self.folder.journal.note(note)
            if recipe.remember_features:
                self.learner.remember_features()
            if recipe.stdp is not None and self.step == 0:
                self._stdp(recipe.stdp)
            readable = self.images.readable_valid() if self.main else []
            self.images.share_notes()
            for epoch in range(self.first_epoch, recipe.epochs):
                phase = recipe.phase_of(epoch)
                record = self._epoch(epoch, phase)
                self._calibrate(phase)
                if (journal := self.folder.journal) is not None:  # of the first rank alone
                    rates = self._rates(readable) if phase.spiking else {}
                    record.update({f"rate_{layer}": round(rate, 5) for layer, rate in rates.items()})
                    record.update(self._validate(readable, phase), seconds=self._seconds())
                    journal.epoch(record)
                    settled = epoch > 0 and recipe.phase_of(epoch - 1) is phase
                    for warning in rates_warnings(rates) + (inert_warnings(record) if settled else []):
                        journal.warn(warning)
                state = self._state(phase, epoch + 1)
                if epoch + 1 == recipe.epochs or recipe.phase_of(epoch + 1) is not phase:
                    self.folder.save_phase(phase.name, self.learner.published, state)
                self.folder.save(self.step, self.learner.modules, state, self.learner.optimizers)
            self.accelerator.wait_for_everyone()
            return self._finish(readable)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{self.folder.path}: a file could not be written or read ({error}); the last checkpoint is "
                "complete: free disk space and continue with --resume"
            ) from error
        finally:
            self.folder.close()

    def _environment(self) -> JsonObject:
        return {**environment(), "devices": self.ranks, **self._chosen(), "initialized": self.origins}

    def _chosen(self) -> dict[str, str]:
        return {PRECISION_CHOSEN: self.chosen} if self.chosen else {}

    def _rates(self, readable: list[int]) -> dict[str, float]:
        """Firing rates at inference of the published weights, on validation images."""
        return layer_rates(self.learner.published.eval(), self._valid_images(readable, MEASURED))

    def _valid_images(self, readable: list[int], count: int) -> Iterator[tuple[torch.Tensor, list[int]]]:
        return images_at_reset(self.images.valid, readable[:count])

    def _validate(self, readable: list[int], phase: Phase) -> dict[str, float]:
        model, tokenizer = self.learner.published.eval(), self.processor.tokenizer
        options = EvaluationOptions(progress=self.progress)
        measured = RetrievalSet.of_pairs(self.images.valid, readable)
        variant = Variant("embedding images", concrete_only=phase.concrete_only)
        found = rank(model, tokenizer, measured, variant, options)
        values = {
            f"valid_{way}_{k}": round(share, 4)
            for way, recalls in found.main.recalls.items()
            for k, share in recalls.items()
        }
        if self.config.has_spiking_branch and phase.spiking:
            gauges = feature_gauges(model, self._valid_images(readable, MEASURED))
            shown = [SPIKES_ALONE] if phase.beside else ablated(self.config)
            gauges |= ablation_gauges(model, tokenizer, measured, found, shown, options)
            if (start := self.learner.start) is not None:
                gauges["branch_moved"] = start.moved(self.learner.model.ashnets.vision.collector.concepts)
            values |= {name: round(value, 6) for name, value in gauges.items()}
        return values

    def _stdp(self, settings: STDP) -> None:
        """The unsupervised stage on the first spiking layers; every rank computes the same."""
        vision = self.learner.model.ashnets.vision
        batches = self.images.spikes(vision, settings.images, settings.batch, self.device)
        self.folder.write("stdp.json", stdp_stage(vision.abstract_encoder, batches, settings, self.progress))
        self.learner.renew_copies()

    def _learned_from(self) -> JsonObject:
        """For the model card: a folder by its name, not its path."""
        return {"name": self.data_name, "splits": list(self.recipe.train), "images": len(self.images.train)}

    def _record(self) -> JsonObject:
        before = training_record(self.recipe.model) or {} if self.recipe.weights == PRETRAINED else {}
        return {
            "recipe": self.recipe.name,
            "model": before.get("model", without_place(self.recipe.model)),
            "changes": {**before.get("changes", {}), **self.recipe.changes},
            "seed": self.recipe.seed,
            "hold_out": self.recipe.hold_out,
            "learned_from": self._learned_from(),
            "epochs": self.recipe.epochs,
            "pairs_seen": self.pairs_seen,
            "seconds": self._seconds(),
            "precision": self.recipe.precision,
            **self._chosen(),
            "initialized": self.origins,
            "environment": {**environment(), "devices": self.ranks},
        }

    def _close(self, readable: list[int], heading: tuple[str, str]) -> JsonObject:
        """Measure the published model on the held-out items and write the page of examples (`closing`)."""
        return close_retrieval(
            self.learner.published.eval(),
            self.processor,
            self.images.valid,
            readable,
            self.recipe.phases[-1].concrete_only,
            heading,
            self.folder.path,
            EvaluationOptions(progress=self.progress, seed=self.recipe.seed),
        )

    def _learned(self) -> list[str]:
        """The sketch of all training items of the model, including those of the weights that it started from."""
        return merged(self.learned_before, sketch(self.images.train))

    def _finish(self, readable: list[int]) -> JsonObject:
        record = self._record()
        if self.main:
            if rates := {layer: round(rate, 5) for layer, rate in self._rates(readable).items()}:
                record["firing_rates"] = rates
            if found := rates_warnings(rates):
                record["warnings"] = found
            heading = (f"{self.recipe.name}: held-out items", f"{self.data_name}, split {self.recipe.valid}")
            record["validation"] = self._close(readable, heading)
            write_model(self.learner.published.eval(), self.processor, self.folder.path, record, self._learned())
        return record
