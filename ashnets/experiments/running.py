"""Run a unit, and measure it. Finished runs and measurements are not repeated; interrupted runs are continued.

What was measured is kept beside the runs. A run whose measurements are all there may be deleted: it is not run again.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import torch

from ashnets.environment import environment
from ashnets.evaluation.classification import flat_metrics
from ashnets.evaluation.evaluating import DataPlace, evaluate_models
from ashnets.evaluation.options import EvaluationOptions
from ashnets.evaluation.record import training_record
from ashnets.experiments.sheet import draw_batches
from ashnets.experiments.units import Measured, Stage, Unit
from ashnets.files import JsonObject, write_json
from ashnets.hub.resolving import weights_sha256
from ashnets.objectives import NAMES
from ashnets.runs import finetune, train
from ashnets.training.distributed import rank, world_size
from ashnets.training.journal import EPOCHS, read_records
from ashnets.training.telling import costs_of

TRAINED, COSTS, SHEET = "measured-pre-training.json", "measured-costs.json", "measured-sheet.json"
FLAT_BASELINES = ("majority by text", "bag of words")  # those that read the text alone


def devices() -> int:
    """Processes that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_ranks() -> None:
    """Under torchrun, connect the processes, before they ask each other."""
    if devices() > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=2))


def run_unit(unit: Unit, costs: bool = False, sheet: bool = False, progress: bool = True) -> None:
    """Train what is not trained yet, and measure what is not measured yet; on all ranks.

    Args:
        costs: also measure the memory of pre-training.
        sheet: also draw a random and a similar batch.

    Raises:
        AshNetsError: as in training and evaluation.
    """
    with _claimed(unit.folder):
        for stage in unit.stages:
            if _agreed(stage in stages_left(unit, costs, sheet)):
                run_stage(stage, progress=progress)
            _wait()
        if costs and not _agreed((unit.folder / COSTS).is_file()):
            found = run_stage(unit.pretraining, dry_run=True)
            if rank() == 0:
                costs_found = costs_of(found)
                metrics = {
                    "memory (MB)": round(costs_found["bytes"] / 1e6, 1),
                    "parameters (M)": round(costs_found["parameters"] / 1e6, 3),
                }
                write_json(unit.folder / COSTS, {"metrics": metrics, **_about(unit.pretraining)})
        if rank() == 0:
            _measure(unit, sheet, progress)
        _wait()


def stages_left(unit: Unit, costs: bool = False, sheet: bool = False) -> list[Stage]:
    """The unfinished runs that something needs which is not measured yet."""
    wanted = {one.stage for one in unit.measured if not one.file.is_file()}
    of_pretraining = [TRAINED, *([COSTS] if costs else []), *([SHEET] if sheet else [])]
    if any(not (unit.folder / name).is_file() for name in of_pretraining) or any(not one.finished for one in wanted):
        wanted.add(unit.pretraining)
    return [stage for stage in unit.stages if stage in wanted and not stage.finished]


def run_stage(stage: Stage, dry_run: bool = False, progress: bool = True) -> JsonObject:
    """One run, from its start or from its last checkpoint; a dry run says what it needs."""
    overrides = list(stage.estimated if dry_run and stage.estimated else stage.overrides)
    common: JsonObject = {"output": stage.folder, "overrides": overrides, "dry_run": dry_run, "progress": progress}
    common["resume"] = False if dry_run else _agreed(stage.begun)
    try:
        if stage.task is None:
            return train(stage.recipe, corpus=stage.data, **common)
        return finetune(stage.task, stage.recipe, data=stage.data, images=stage.images, **common)
    finally:
        gc.collect()


def _measure(unit: Unit, sheet: bool, progress: bool) -> None:
    if not (unit.folder / TRAINED).is_file():
        write_json(unit.folder / TRAINED, _trained(unit.pretraining))
    if sheet and not (unit.folder / SHEET).is_file():
        write_json(unit.folder / SHEET, {**draw_batches(unit, progress), **_about(unit.pretraining)})
    for one in unit.measured:
        if not one.file.is_file():
            write_json(one.file, _evaluated(one, progress))


def _about(stage: Stage) -> JsonObject:
    return {"weights_sha256": weights_sha256(stage.model), "environment": environment()}


def _trained(stage: Stage) -> JsonObject:
    """What the log of a pre-training says."""
    record = training_record(stage.model) or {}
    epochs = read_records(stage.folder / EPOCHS)
    last = [one for one in epochs if one["phase"] == epochs[-1]["phase"]]
    lasting: dict[str, list[float]] = {}  # phase → seconds of its epochs
    for one, (start, end) in zip(epochs, pairwise([0.0, *(one["seconds"] for one in epochs)]), strict=True):
        lasting.setdefault(one["phase"], []).append(end - start)
    # other programs disturb the fastest epoch of a phase least: it counts for all
    seconds = sum(len(some) * min(some) for some in lasting.values())
    losses = [{key: one[key] for key in ("epoch", *NAMES) if key in one} for one in last]
    return {
        "metrics": {
            "epochs": len(epochs),
            "seconds an epoch": round(min(lasting[epochs[-1]["phase"]]), 2),
            "hours": round(seconds / 3600, 5),
            **{f"loss {key}": value for key, value in losses[-1].items() if key != "epoch"},
        },
        "last_phase": losses,
        "weights_sha256": weights_sha256(stage.model),
        "environment": record.get("environment", {}),
    }


def _evaluated(one: Measured, progress: bool) -> JsonObject:
    task = one.task
    options = EvaluationOptions(
        splits=(task.split,),
        sample=task.sample,
        candidates=0 if task.task == "retrieval" else None,
        variants=False,
        progress=progress,
    )
    output = one.file.with_name(f"predictions-{task.name}") if task.predictions else None
    place = DataPlace(one.place, task.data, one.images)
    found = evaluate_models([one.stage.model], task.task, place, options, output).to_dict()
    ((_, result),) = found["models"].items()
    return {
        **flat(result["splits"][task.split]),
        "n": result["splits"][task.split]["n"],
        **({"predictions": output.name} if output is not None else {}),
        "weights_sha256": result["weights_sha256"],
        "environment": found["environment"],
    }


def flat(result: JsonObject) -> JsonObject:
    """``{"metrics", "chance", "blind"}`` of a result of a split, each name → number.

    ``blind`` is the better of the baselines that read the text alone; in retrieval, text alone is at chance.
    """
    metrics = dict(flat_metrics(result["variants"]["reset"]))
    metrics = {key: value for key, value in metrics.items() if key not in ("n", "images", "captions", "sentences")}
    baselines = {name: dict(flat_metrics(found)) for name, found in result.get("baselines", {}).items()}
    chance = baselines.pop("chance", {})
    blind: dict[str, float] = {}
    for name in FLAT_BASELINES:
        for key, value in baselines.get(name, {}).items():
            blind[key] = max(value, blind.get(key, value))
    if result["task"] == "retrieval":
        blind = chance
    known = {key: [one.get(key) for one in (chance, blind)] for key in metrics}
    return {
        "metrics": metrics,
        "chance": {key: pair[0] for key, pair in known.items() if pair[0] is not None},
        "blind": {key: pair[1] for key, pair in known.items() if pair[1] is not None},
    }


def read_measured(file: Path) -> JsonObject | None:
    """A result; None if it was not measured yet."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _agreed(value: bool) -> bool:
    """The first rank's answer, on all ranks: a file may appear between two looks."""
    if world_size() == 1:
        return value
    found = [value]
    torch.distributed.broadcast_object_list(found)
    return found[0]


def _wait() -> None:
    if world_size() > 1:
        torch.distributed.barrier()


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """One process at a time works on a unit; another one waits and then finds it finished."""
    if rank() > 0 or sys.platform == "win32":
        yield
        return
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
