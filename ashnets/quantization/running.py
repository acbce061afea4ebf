"""Quantize a checkpoint by quantization-aware fine-tuning: its abstract encoder then computes in a chip's integers.

1. Calibration: the running statistics of tdBN are recomputed and then fixed.
2. Rounding: the same tensors are loaded with ``precision="int8"``.
3. Fine-tuning: some steps of the checkpoint's own training, with straight-through gradients, reduce the rounding error.

After each stage the metric of the checkpoint is measured on a split that is not trained on. For a pre-trained
checkpoint it is retrieval, and retrieval of texts by spikes alone, which shows the rounding most. The share of spikes
of each layer that differ from the float checkpoint, on the same input spikes, is measured too. This module quantizes
pre-trained checkpoints, `ashnets.quantization.tasks` those of tasks.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from ashnets.data.learned import read_sketch, write_sketch
from ashnets.data.sources.opening import open_source
from ashnets.errors import ConfigurationError, MissingExtraError
from ashnets.files import JsonObject, write_atomically, write_json
from ashnets.hub.loading import from_pretrained
from ashnets.hub.resolving import resolve
from ashnets.model.firing import rates_warnings
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.result_folder import MODEL_MARK, check_place, result_folder
from ashnets.words import install

try:
    from ashnets.quantization.work import Quantizing
except ImportError as error:
    if error.name != "accelerate":
        raise
    raise MissingExtraError(f"Quantization needs accelerate: {install('train')}.") from None

from ashnets.environment import environment
from ashnets.evaluation.record import TRAINING_RECORD, training_record
from ashnets.quantization.spikes_changed import spikes_changed
from ashnets.training.memory import keep_freed_memory
from ashnets.training.publish import in_half
from ashnets.training.reading import load_recipe
from ashnets.training.recipe import Recipe, Schedule

REPORT = "quantization.json"
RECIPE = "recipe.yaml"
RATE = 0.1  # factor on the learning rates of the checkpoint's own recipe
WHOLE = ".abstract_encoder."  # these tensors stay in float32: the exported integers are computed from them


def quantize(
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
) -> JsonObject:
    """Calibrate, round, fine-tune and measure.

    Args:
        name: a float checkpoint of ``AshNetsForPreTraining``: registry name, folder or Hub repository.
        output: a new folder, which ``from_pretrained`` then loads; written aside and renamed.
        corpus: images with captions, in any form that ``open_source`` knows; its ``train`` split is used for training.
        recipe: for fine-tuning: its last phase with spikes, its optimizers and its schedule are used unchanged. By
            default the checkpoint's own recipe, with a tenth of its learning rates, a cosine schedule to zero and no
            weight average.
        overrides: ``key=value`` for the recipe.
        steps: optimizer steps of the fine-tuning; 0 only rounds.
        calibration: training images from which the running statistics are computed, in whole groups of φ; 0 keeps the
            checkpoint's statistics.
        compared: number of images on which spikes are compared.
        split: for the measurements; the recipe's validation split by default.
        dry_run: check everything, measure one step, write nothing.

    Returns:
        The report, which is also written to ``quantization.json`` in ``output``.

    Raises:
        ConfigurationError: the model has no spiking branch or is quantized already, no recipe, a recipe without a
            spiking phase, or weights that do not fit a chip.
        OutputError: ``output`` exists and is not empty, or cannot be written.
        TrainingError: a step gave an infinite or NaN value.
        DataError, WeightsError, UnknownModelError: as in training and loading.
    """
    require_new(output, dry_run)
    folder = Path(resolve(name))
    settings = fine_tuning_recipe(folder, recipe, overrides, steps)
    model = float_model(name, folder, "pretraining")
    source = open_source(corpus, (training_record(folder) or {}).get("hold_out", settings.hold_out))
    work = Quantizing(
        settings, model, AshNetsProcessor.from_pretrained(folder), source, split or settings.valid, steps, progress
    )
    return run_quantization(work, str(name), folder, output, calibration, compared, dry_run)


def require_new(output: Path, dry_run: bool) -> None:
    """Raises OutputError if ``output`` exists and is not empty, unless it is a dry run."""
    if not dry_run:
        check_place(output, MODEL_MARK, "refuse")


def run_quantization(
    work: Quantizing, name: str, folder: Path, output: Path, calibration: int, compared: int, dry_run: bool
) -> JsonObject:
    """Run all stages; see :func:`quantize`.

    Args:
        work: training data and metric of this kind of checkpoint.
        folder: of the checkpoint.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
    if dry_run:
        return {"model": name, **work.plan(_rounded(work.float_model))}
    with result_folder(output, MODEL_MARK, "refuse") as aside:
        return _measured_stages(work, name, folder, aside, calibration, compared)


def _measured_stages(
    work: Quantizing, name: str, folder: Path, output: Path, calibration: int, compared: int
) -> JsonObject:
    """Run and measure all stages; writes the model and the report to ``output`` and returns the report."""
    model, steps = work.float_model, work.steps
    began = time.monotonic()
    result: JsonObject = {
        "model": name,
        "recipe": work.recipe.name,
        **work.about(),
        "split": work.split,
        "steps": steps,
        "calibrated_on": 0,
        "compared_on": min(compared, work.images_to_compare),
    }
    # "concrete alone" does not depend on spikes: if "float" is close to it, the metric hardly shows the rounding
    measured = {"concrete alone": work.evaluate(model, concrete_only=True), "float": work.evaluate(model)}
    spikes = {"float": work.evaluate_spikes(model)}
    layers = {}

    def evaluate_stage(stage: str, found: AshNetsPreTrainedModel) -> None:
        measured[stage], spikes[stage] = work.evaluate(found), work.evaluate_spikes(found)
        layers[stage] = spikes_changed(model, found, work.input_spikes(compared))

    calibrated = copy.deepcopy(model)
    if calibration:
        result["calibrated_on"] = work.calibrate(calibrated, calibration)
        evaluate_stage("calibrated", calibrated)
    quantized = _rounded(calibrated)
    evaluate_stage("rounded", quantized)
    if steps:
        result["losses"] = work.train(quantized)
        quantized = work.published.cpu()
    summary = {key: result[key] for key in ("recipe", "steps", "calibrated_on")}
    _write(output, quantized, work.processor, work.recipe, {**(training_record(folder) or {}), "quantized": summary})
    if known := read_sketch(folder):
        write_sketch(output, known)
    if steps:
        # measure the published model: the weights as written to these files
        evaluate_stage("fine-tuned", from_pretrained(output, task=work.head))
    told: JsonObject = {work.metric: measured, **({"spiking_to_text": spikes} if spikes["float"] else {})}
    last = {layer: one["rate"] for layer, one in list(layers.values())[-1].items()}
    if warnings := rates_warnings(last):
        told["warnings"] = warnings
    report = {
        **result,
        **told,
        "spikes_changed": layers,
        "seconds": round(time.monotonic() - began, 1),
        "environment": environment(),
    }
    write_json(output / REPORT, report)
    return report


def fine_tuning_recipe(folder: Path, recipe: Path | None, overrides: list[str] | None, steps: int) -> Recipe:
    """The recipe of the fine-tuning, with one phase; a `TaskRecipe` if the file has the key ``task``.

    Args:
        folder: of the checkpoint; its own recipe is the default.

    Raises:
        ConfigurationError: there is no recipe, or none of its phases trains the spiking branch.
    """
    own = recipe is None
    path = folder / RECIPE if recipe is None else Path(recipe)
    if own and not path.is_file():
        raise ConfigurationError(f"{folder} contains no {RECIPE} for the fine-tuning: name one with --recipe")
    found = load_recipe(path, overrides)
    phases = [phase for phase in found.phases if not phase.concrete_only and "spiking" not in phase.frozen]
    if not phases:
        raise ConfigurationError(f"{path}: no phase trains the spiking branch, which rounding changes")
    changes: JsonObject = {"phases": [phases[-1]], "stdp": None, "start": None, "changes": {}}
    if own:
        changes |= {
            "schedule": Schedule(kind="cosine", warmup_steps=found.schedule.warmup_steps),
            "ema": 0.0,
            "optimizers": {
                part: dataclasses.replace(optimizer, lr=optimizer.lr * RATE)
                for part, optimizer in found.optimizers.items()
            },
        }
    return dataclasses.replace(found, **changes)


def float_model(name: str | Path, folder: Path, head: str) -> AshNetsPreTrainedModel:
    """The checkpoint, loaded with a head.

    Raises:
        ConfigurationError: the model has no spiking branch, or is quantized already.
        WeightsError: tensors of the head are missing.
    """
    model = from_pretrained(folder, task=head)
    if not model.config.has_spiking_branch:
        raise ConfigurationError(
            f"{name} has no spiking branch to quantize: give a model that has one; names that end in -ann have none"
        )
    if model.config.precision != "float":
        raise ConfigurationError(f"{name} has precision={model.config.precision!r} already: give a float checkpoint")
    return model


def _rounded(model: AshNetsPreTrainedModel) -> AshNetsPreTrainedModel:
    """A model with the same tensors that computes in integers."""
    found = type(model)(type(model.config).from_dict({**model.config.to_dict(), "precision": "int8"}))
    found.load_state_dict(model.state_dict())
    return found.eval()


def _write(
    folder: Path, model: AshNetsPreTrainedModel, processor: AshNetsProcessor, recipe: Recipe, record: JsonObject
) -> None:
    """Write the published form in float16; the abstract encoder stays in float32: integers are computed from it."""
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    halved = {key: tensor if WHOLE in key else in_half(tensor) for key, tensor in load_file(path).items()}
    save_file(halved, folder / "half", metadata={"format": "pt"})
    (folder / "half").replace(path)
    processor.save_pretrained(folder)
    text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE, text.encode())
    write_json(folder / TRAINING_RECORD, record)
