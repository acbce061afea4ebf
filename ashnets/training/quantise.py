"""A float checkpoint to one whose abstract encoder computes in a chip's integers, by quantisation-aware fine-tuning.

The running statistics of tdBN are gathered once more and then stand still; the same tensors, read with
``precision="int8"``, are the rounded model; a few steps of pre-training with straight-through gradients repair what
rounding broke. What is measured at each of these points is retrieval on a split that no step trains on, and how many
spikes of each layer differ from the float checkpoint's on the same input spikes.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

import ashnets
from ashnets.data.pairs import Pairs
from ashnets.data.sources import Source, open_source
from ashnets.errors import ConfigurationError, MissingExtraError, TrainingError
from ashnets.files import write_atomically, write_json
from ashnets.model.abstract_encoder import as_sequence
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.sampling import image_key
from ashnets.model.tdbn import calibrate
from ashnets.processor import AshNetsProcessor

try:
    from accelerate import Accelerator
except ImportError:
    raise MissingExtraError("Quantising needs accelerate: pip install 'ashnets[train]'.") from None

from ashnets.training.estimate import estimate
from ashnets.training.evaluate import TRAINING_RECORD, environment, retrieval
from ashnets.training.journal import Progress
from ashnets.training.learner import Learner, NotFinite
from ashnets.training.loader import load_epoch
from ashnets.training.means import Means
from ashnets.training.memory import keep_freed_memory
from ashnets.training.optim import factor, set_learning_rates
from ashnets.training.pictures import Pictures
from ashnets.training.pretrain import Batch
from ashnets.training.recipe import Phase, Recipe, Schedule, load_recipe

REPORT = "quantisation.json"
RECIPE = "recipe.yaml"
RATE = 0.1  # share of its recipe's learning rates at which a checkpoint is fine-tuned
WHOLE = ".abstract_encoder."  # these tensors stay in float32: the exported integers are made from them


def quantise(
    name: str | Path,
    output: Path,
    *,
    corpus: Path,
    recipe: Path | None = None,
    overrides: list[str] | None = None,
    steps: int = 200,
    calibration: int = 1024,
    compared: int = 256,
    split: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Calibrate, round, fine-tune and measure.

    Args:
        name: a float checkpoint of ``AshNetsForPreTraining``: registry name, folder or Hub repository.
        output: a new folder, which ``from_pretrained`` then loads; written aside and renamed.
        corpus: pictures with captions, in any form that ``open_source`` knows; its ``train`` split is trained on.
        recipe: how to fine-tune: its last phase with spikes, its optimisers and schedule, as they are. By default the
            checkpoint's own recipe, at a tenth of its rates, with a cosine to zero and no weight average.
        overrides: ``key=value`` for the recipe.
        steps: of the optimisers; 0 rounds alone.
        calibration: training pictures that the running statistics are gathered from, in whole groups of φ; 0 keeps the
            checkpoint's.
        compared: pictures on which spikes are compared.
        split: to measure on; the recipe's validation split by default.
        dry_run: check everything, measure one step, write nothing.

    Returns:
        The report, which ``output`` also holds as ``quantisation.json``.

    Raises:
        ConfigurationError: the model has no spiking branch or is quantised already, no recipe, a recipe without a
            spiking phase, or weights that a chip cannot hold.
        TrainingError: ``output`` is there already, or a step gave a number that is none.
        DataError, WeightsError, UnknownModelError: as elsewhere.
    """
    output = Path(output)
    if not dry_run and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TrainingError(f"{output} is there already: give --output another folder")
    folder = Path(ashnets.resolve(name))
    model = _float_model(name, folder)
    record = _record(folder)
    settings = fine_tuning_recipe(folder, recipe, overrides, steps)
    if not torch.cuda.is_available():
        keep_freed_memory()
    source = open_source(corpus, record.get("hold_out", settings.hold_out))
    run = _FineTuning(settings, model.config, AshNetsProcessor.from_pretrained(folder), source, steps, progress)
    if dry_run:
        return {"model": str(name), **run.plan(_rounded(model))}

    began = time.monotonic()
    held_out = Pairs(source, [split or settings.valid], model.config.image_size)
    result: dict[str, Any] = {
        "model": str(name), "recipe": settings.name, "split": split or settings.valid, "steps": steps,
        "calibrated_on": 0, "compared_on": min(compared, len(held_out)),
    }  # fmt: skip
    tokenizer = run.processor.tokenizer

    def measure(model: AshNetsForPreTraining, **options: bool) -> dict[str, Any]:
        return retrieval(model.eval(), tokenizer, held_out, progress=progress, **options)

    # the first is what no spike can change: near it, the metric says little of the rounding
    measured = {"concrete alone": measure(model, concrete_only=True), "float": measure(model)}
    layers = {}

    def compare(stage: str, found: AshNetsForPreTraining) -> None:
        measured[stage] = measure(found)
        layers[stage] = spikes_changed(model, found, held_out, compared)

    calibrated = copy.deepcopy(model)
    if calibration:
        result["calibrated_on"] = run.calibrate(calibrated, calibration)
        compare("calibrated", calibrated)
    quantised = _rounded(calibrated)
    compare("rounded", quantised)
    if steps:
        result["losses"] = run.train(quantised)
        quantised = run.published.cpu()
    aside = output.with_name(output.name + ".partial")
    try:
        summary = {key: result[key] for key in ("recipe", "steps", "calibrated_on")}
        _write(aside, quantised, run.processor, settings, {**record, "quantised": summary})
        if steps:
            # what is published is measured: these weights, read from these files
            compare("fine-tuned", ashnets.from_pretrained(aside, task="pretraining"))
        report = {**result, "retrieval": measured, "spikes_changed": layers,
                  "seconds": round(time.monotonic() - began, 1), "environment": environment()}  # fmt: skip
        write_json(aside / REPORT, report)
        if output.exists():
            output.rmdir()  # an empty one
        aside.rename(output)
    except OSError as error:
        raise TrainingError(f"{output}: the model could not be written ({error}); make room and repeat") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return report


def fine_tuning_recipe(folder: Path, recipe: Path | None, overrides: list[str] | None, steps: int) -> Recipe:
    """The recipe of the fine-tuning, with one phase.

    Args:
        folder: of the checkpoint, whose own recipe is the default.

    Raises:
        ConfigurationError: none there, or no phase of it trains the spiking branch.
    """
    own = recipe is None
    path = folder / RECIPE if recipe is None else Path(recipe)
    if own and not path.is_file():
        raise ConfigurationError(f"{folder} holds no {RECIPE} to fine-tune by: name one with --recipe")
    found = load_recipe(path, overrides)
    phases = [phase for phase in found.phases if not phase.concrete_only and "spiking" not in phase.frozen]
    if not phases:
        raise ConfigurationError(f"{path}: no phase trains the spiking branch, which is what rounding changes")
    changes: dict[str, Any] = {"phases": [phases[-1]], "stdp": None, "start": None, "changes": {}}
    if own:
        warmup = min(found.schedule.warmup_steps, steps // 10)
        changes |= {
            "schedule": Schedule(kind="cosine", warmup_steps=warmup),
            "ema": 0.0,
            "optimisers": {
                part: dataclasses.replace(optimiser, lr=optimiser.lr * RATE)
                for part, optimiser in found.optimisers.items()
            },
        }
    return dataclasses.replace(found, **changes)


class _FineTuning:
    """Pictures, and a learner once there is a model."""

    def __init__(
        self, recipe: Recipe, config: Any, processor: AshNetsProcessor, source: Source, steps: int, progress: bool
    ) -> None:
        self.recipe, self.processor, self.steps, self.progress = recipe, processor, steps, progress
        self.phase: Phase = recipe.phases[0]
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        if self.accelerator.num_processes > 1:
            raise TrainingError("quantize runs in one process: start it without torchrun")
        self.learner: Learner | None = None
        self.pictures = Pictures(recipe, config, source, processor.tokenizer, lambda *_: None)

    @property
    def published(self) -> AshNetsForPreTraining:
        assert self.learner is not None
        return self.learner.published

    def _learner(self, model: AshNetsForPreTraining) -> Learner:
        self.learner = Learner(self.recipe, model, self.processor.tokenizer.mask_token_id, self.accelerator)
        return self.learner

    def plan(self, model: AshNetsForPreTraining) -> dict[str, Any]:
        """What the fine-tuning trains and needs, from one real step."""
        learner = self._learner(model)
        learner.prepare(self.phase)
        batch = self.pictures.batches(self.pictures.plan(self.pictures.random_groups(0))[:1], 0).read(0)
        return {
            "recipe": self.recipe.name,
            "phase": self.phase.name,
            "pictures": len(self.pictures.train),
            "steps": self.steps,
            **estimate(
                model, lambda: learner.forward(batch)[0].backward(), optimisers=learner.optimisers,
                copies=len(learner.copies), queue_bytes=0, pairs=len(batch.image_ids), steps=self.steps,
                device=learner.device, beside=list(learner.modules.values())[1:],
            ),
        }  # fmt: skip

    def calibrate(self, model: AshNetsForPreTraining, count: int) -> int:
        """Gather the running statistics as training did, over varied pictures in groups; returns how many.

        Pictures on white, each from rest, would have other statistics than those that the weights were trained with.
        """
        vision, seen = model.ashnets.vision, 0
        groups = self.pictures.random_groups(0)[: -(-count // model.config.group_size)]
        planned = self.pictures.batches(self.pictures.plan(groups), 0)

        def sequences() -> Iterator[torch.Tensor]:
            nonlocal seen
            for batch in load_epoch(planned, 0, self.recipe.workers, pin=False):
                self.pictures.note(batch.skipped)
                seen += len(batch.image_ids)
                spikes = vision.sample(batch.pixel_values, batch.image_keys)
                yield as_sequence(spikes, batch.group_size) if model.config.carry == "group" else spikes

        calibrate(vision.abstract_encoder, sequences(), run=vision.abstract_encoder.run)
        return seen

    def train(self, model: AshNetsForPreTraining) -> list[float]:
        """The steps; returns the loss of each."""
        learner, losses = self._learner(model), []
        bar = Progress(self.steps, description=f"fine-tuning {self.phase.name}", device=learner.device,
                       enabled=self.progress)  # fmt: skip
        batches = self._batches(learner)
        with bar:
            for step in range(self.steps):
                means = Means()
                several = [next(batches) for _ in range(self.recipe.accumulate)]
                epoch = self.epoch
                scale = factor(self.recipe.schedule, step, epoch, self.steps)
                set_learning_rates(learner.optimisers, self.recipe, scale)
                try:
                    learner.optimise(several, step, means)
                except NotFinite as error:
                    pictures = ", ".join(name for batch in several for name in batch.image_ids[:3])
                    raise TrainingError(
                        f"{error} became infinite or no number at step {step} (pictures {pictures} …): lower "
                        "optimisers.*.lr, or set precision=fp32"
                    ) from None
                for batch in several:
                    self.pictures.note(batch.skipped)
                losses.append(means.flush()["loss"])
                bar.advance(sum(len(batch.image_ids) for batch in several), losses[-1])
        learner.check_weights()
        return [round(loss, 4) for loss in losses]

    def _batches(self, learner: Learner) -> Iterator[Batch]:
        """Epoch after epoch, each grouped as the phase says."""
        self.epoch = 0
        while True:
            if self.phase.grouping == "similar":
                groups, _ = self.pictures.similar_groups(
                    learner.published.eval(), self.epoch, self.phase, learner.autocast(), self.progress
                )
            else:
                groups = self.pictures.random_groups(self.epoch)
            learner.prepare(self.phase)
            planned = self.pictures.plan(groups)
            yield from load_epoch(
                self.pictures.batches(planned, self.epoch), 0, self.recipe.workers, pin=learner.device.type == "cuda"
            )
            self.epoch += 1


def _float_model(name: str | Path, folder: Path) -> AshNetsForPreTraining:
    model = ashnets.from_pretrained(folder, task="pretraining")
    if not model.config.has_spiking_branch:
        raise ConfigurationError(f"{name} has no spiking branch (summary_ratio='ann'): there is nothing to quantise")
    if model.config.precision != "float":
        raise ConfigurationError(f"{name} has precision={model.config.precision!r} already: give a float checkpoint")
    return model


def _rounded(model: AshNetsForPreTraining) -> AshNetsForPreTraining:
    """The same tensors, computed in integers."""
    config = type(model.config)(**{**model.config.to_dict(), "precision": "int8"})
    found = AshNetsForPreTraining(config)
    found.load_state_dict(model.state_dict())
    return found.eval()


@torch.inference_mode()
def spikes_changed(
    before: AshNetsForPreTraining, after: AshNetsForPreTraining, pairs: Pairs, count: int
) -> dict[str, dict[str, float]]:
    """Compare the spikes of two models' layers on the same input spikes, each picture from rest.

    Args:
        count: pictures, the first of ``pairs``.

    Returns:
        For each layer ``rate_float`` and ``rate``, spikes a neuron and step; ``changed``, the share of all neurons'
        steps that differ; ``changed_per_spike``, the same number over the float model's spikes.
    """
    sums: dict[str, np.ndarray] = {}
    for start in range(0, min(count, len(pairs)), 32):
        part = range(start, min(start + 32, count, len(pairs)))
        keys = [image_key(pairs.image_ids[i]) for i in part]
        outputs = []
        for model in (before, after):
            vision = model.ashnets.vision
            spikes = vision.sample(pairs.on_white(part).to(model.device), keys)
            outputs.append(vision.abstract_encoder.run(spikes)[0])
        for name, ours in outputs[0].items():
            theirs = outputs[1][name].to(ours.device)
            found = [ours.sum(dtype=torch.int64), theirs.sum(dtype=torch.int64), (ours != theirs).sum()]
            sums[name] = sums.get(name, 0) + np.array([*map(int, found), ours.numel()])
    return {
        name: {
            "rate_float": round(ours / total, 5),
            "rate": round(theirs / total, 5),
            "changed": round(changed / total, 5),
            "changed_per_spike": round(changed / ours, 5) if ours else 0.0,
        }
        for name, (ours, theirs, changed, total) in ((name, row.tolist()) for name, row in sums.items())
    }


def _record(folder: Path) -> dict[str, Any]:
    path = folder / TRAINING_RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(
    folder: Path, model: AshNetsForPreTraining, processor: AshNetsProcessor, recipe: Recipe, record: dict[str, Any]
) -> None:
    """The published form: float16, but the abstract encoder's tensors, which integers are made from, in float32."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    halved = {
        key: tensor.half() if tensor.is_floating_point() and WHOLE not in key else tensor
        for key, tensor in load_file(path).items()
    }
    save_file(halved, folder / "half", metadata={"format": "pt"})
    (folder / "half").replace(path)
    processor.save_pretrained(folder)
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE, text.encode())
    write_json(folder / TRAINING_RECORD, record)
