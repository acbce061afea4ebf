"""The loop of a run: the steps of an epoch, their log, and the checkpoints from which they continue."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from ashnets.configuration import AshNetsConfig
from ashnets.data.loading import load_epoch
from ashnets.errors import TrainingError
from ashnets.files import JsonObject
from ashnets.training.checkpoint import load_checkpoint, read_state
from ashnets.training.folder import RunFolder
from ashnets.training.journal import Progress
from ashnets.training.learner import Learner, NotFinite
from ashnets.training.loader import CALIBRATED, calibration_batches
from ashnets.training.means import Means
from ashnets.training.optim import factor, phase_factor, set_learning_rates
from ashnets.training.pretrain import Batch
from ashnets.training.recipe import PRETRAINED, Phase, Recipe


@dataclass
class Within:
    """How far an epoch is, for a checkpoint inside it.

    Attributes:
        groups: image indices of each group, in the order of training.
        figures: log values of the grouping.
        sums: see `Means`.
        micro_batches: finished ones.
    """

    groups: list[np.ndarray]
    figures: JsonObject
    sums: dict[str, list[float]]
    micro_batches: int


class Loop:
    """The epochs of a run; `ashnets.training.run.Run` prepares the attributes, validates and publishes.

    Attributes:
        ranks: number of processes; ``progress`` is True on the first one at most.
        origins: what the model's weights started from.
        first_epoch: number of finished epochs at the start.
        steps_an_epoch, step: planned optimizer steps of an epoch, and finished ones.
        within: how far the first epoch is, if a resumed run starts inside it.
        began: the start, on `time.monotonic`.
    """

    recipe: Recipe
    config: AshNetsConfig
    device: torch.device
    ranks: int
    progress: bool
    folder: RunFolder
    images: Any
    learner: Learner
    origins: list[str]
    first_epoch: int
    steps_an_epoch: int
    step: int
    pairs_seen: int
    within: Within | None
    began: float

    @property
    def _total_steps(self) -> int:
        return self.recipe.epochs * self.steps_an_epoch

    def _epoch(self, epoch: int, phase: Phase) -> JsonObject:
        recipe, within = self.recipe, self.within
        self.within = None
        first = within is None and (epoch == 0 or recipe.phase_of(epoch - 1) is not phase)
        if first:
            self.learner.begin(self._concepts(epoch, phase))
        if within is not None:
            groups, figures = within.groups, within.figures
        elif phase.grouping != "similar":
            groups, figures = self.images.random_groups(epoch), {}
        else:
            if first:
                self._calibrate(phase)  # the parts that it trains may have been frozen until now
            groups, figures = self.images.similar_groups(
                self.learner.published.eval(), epoch, phase, self.learner.autocast(), self.progress
            )
        means, planned = Means(within.sums if within else None), self.images.plan(groups)
        self.learner.prepare(phase)
        finished = within.micro_batches if within else 0
        batches = load_epoch(
            self.images.batches(planned, epoch), finished, recipe.workers, pin=self.device.type == "cuda"
        )
        total = self._total_steps
        steps, done = -(-len(planned) // recipe.accumulate), finished // recipe.accumulate
        bar = Progress(
            steps,
            done,
            f"epoch {epoch + 1}/{recipe.epochs} {phase.name}",
            run_left=total - self.step,
            device=self.device,
            enabled=self.progress,
        )
        with bar:
            for number in range(done, steps):
                several = planned[finished : finished + recipe.accumulate]
                pairs = sum(len(share.indices) for step in several for share in step)
                # in planned steps: images that could not be read make this epoch shorter or longer than planned
                at = epoch * self.steps_an_epoch + number * self.steps_an_epoch / steps
                scale = factor(recipe.schedule, at, epoch, total)
                if phase is not recipe.phases[0]:
                    scale *= phase_factor(recipe.schedule, at - self._first_step(phase))
                set_learning_rates(self.learner.optimizers, recipe, scale)
                last = number + 1 == steps
                self._optimize([next(batches) for _ in several], epoch, means, last)
                finished += len(several)
                self.pairs_seen += pairs
                due = bool(recipe.checkpoint_every) and self.step % recipe.checkpoint_every == 0 and not last
                if last or due or self.step % recipe.log_every == 0:
                    self._log(means, phase, epoch, scale)
                bar.advance(pairs, means.last.get("loss"))
                if due or last:
                    self.images.share_notes()
                if due:
                    self._save_within(phase, epoch, Within(groups, figures, means.sums, finished))
        return {
            "epoch": epoch + 1,
            "phase": phase.name,
            "step": self.step,
            "pairs_seen": self.pairs_seen,
            **figures,
            **means.means(),
        }

    def _concepts(self, epoch: int, phase: Phase) -> torch.Tensor | None:
        """C from the concrete features, if the spiking branch begins with this phase and they are trained already.

        A branch that starts from trained weights keeps its C.
        """
        begins = epoch > 0 and phase.spiking and not self.recipe.phase_of(epoch - 1).spiking
        collected = (
            self.learner.start is not None
            and self.recipe.weights != PRETRAINED
            and self.config.abstract_scale == "normalized"
            and self.config.has_concrete_branch
        )
        if not begins or not collected:
            return None
        return self.learner.concrete_concepts(self._calibration_batches())

    def _first_step(self, phase: Phase) -> int:
        """The planned step at which a phase begins."""
        before = self.recipe.phases[: self.recipe.phases.index(phase)]
        return sum(one.epochs for one in before) * self.steps_an_epoch

    def _optimize(self, batches: list[Batch], epoch: int, means: Means, last: bool) -> None:
        try:
            self.learner.optimize(batches, self.step, means)
            if last:
                self.learner.check_weights()
        except NotFinite as error:
            self._stop(batches, error.names, epoch)
        for batch in batches:
            self.images.note(batch.skipped)
        self.step += 1

    def _stop(self, batches: list[Batch], names: list[str], epoch: int) -> None:
        """Stop because a value is not finite, and name the images. The last checkpoint is from an earlier step."""
        images = [name for batch in batches for name in batch.image_ids]
        if self.ranks > 1:
            images, names = gather_object(images), list(dict.fromkeys(gather_object(names)))
        found = self.folder.write(
            "bad_batch.json", {"epoch": epoch + 1, "step": self.step, "not_finite": names, "image_ids": images}
        )
        raise TrainingError(
            f"{', '.join(names)} became infinite or NaN at step {self.step}; the images of the batch are listed in "
            f"{found}; start a run in a new folder with lower learning rates or precision=fp32 (start=PHASE-FOLDER "
            "skips finished phases)"
        )

    def _log(self, means: Means, phase: Phase, epoch: int, scale: float) -> None:
        record = means.flush()
        if self.folder.journal is None:
            return
        record.update({name: round(norm, 6) for name, norm in self.learner.gradients.items()})
        self.learner.gradients = {}
        rates = {f"lr_{part}": self.recipe.optimizers[part].lr * scale for part in self.learner.optimizers}
        self.folder.journal.step(
            {
                "step": self.step,
                "epoch": epoch + 1,
                "phase": phase.name,
                "pairs_seen": self.pairs_seen,
                "seconds": self._seconds(),
                **record,
                **rates,
            }
        )

    def _left_out(self, text: str, image: str, ahead: int) -> None:
        if self.folder.journal is not None:
            self.folder.journal.warn(text, image=image, step=self.step + ahead)

    def _seconds(self) -> float:
        return round(self.folder.seconds_before + time.monotonic() - self.began, 1)

    def _calibrate(self, phase: Phase) -> None:
        """Set running statistics for the published weights: before they are evaluated, and before they are saved.

        All ranks take part.
        """
        self.learner.calibrate(phase, self._calibration_batches())
        self.images.share_notes()

    def _calibration_batches(self) -> Iterator[Any]:
        return calibration_batches(self.images, CALIBRATED, self.recipe.workers, pin=self.device.type == "cuda")

    def _state(self, phase: Phase, epoch: int) -> JsonObject:
        """The state that a checkpoint records; ``epoch`` is the number of finished epochs."""
        return {
            "recipe": self.recipe.name,
            "phase": phase.name,
            "epoch": epoch,
            "step": self.step,
            "pairs_seen": self.pairs_seen,
            "ranks": self.ranks,
            "images": self._fingerprint,
            "skipped": self.images.skipped,
            "initialized": self.origins,
        }

    @cached_property
    def _fingerprint(self) -> str:
        """Hash of the training images and their order, on which groups and queues depend."""
        return hashlib.sha256("\n".join(self.images.train.image_ids).encode()).hexdigest()[:16]

    def _save_within(self, phase: Phase, epoch: int, within: Within) -> None:
        """A checkpoint inside an epoch, which must contain the order of the images."""
        sizes = [len(group) for group in within.groups]
        order = {"indices": torch.as_tensor(np.concatenate(within.groups)).long(), "sizes": torch.tensor(sizes)}
        done = {"micro_batches": within.micro_batches, "sums": within.sums, "figures": within.figures}
        state = {**self._state(phase, epoch), **done}
        self.folder.save(self.step, self.learner.modules, state, self.learner.optimizers, order)

    def _resume_from(self, folder: Path) -> None:
        # checked first: other captions give another vocabulary, whose tensors would fail with another message
        if read_state(folder)["images"] != self._fingerprint:
            raise TrainingError(f"{folder} was made on other images: give the same --corpus, or choose another folder")
        state, order = load_checkpoint(folder, self.learner.modules, self.learner.optimizers)
        self.first_epoch, self.step, self.pairs_seen = state["epoch"], state["step"], state["pairs_seen"]
        self.images.skipped, self.origins = state["skipped"], state["initialized"]
        if order:
            groups = np.split(order["indices"].numpy(), np.cumsum(order["sizes"].numpy())[:-1])
            self.within = Within(groups, state["figures"], state["sums"], state["micro_batches"])
