"""The rows of an experiment's results file, from what was measured of its units."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ashnets.experiments.running import COSTS, SHEET, TRAINED, read_measured
from ashnets.experiments.units import Unit
from ashnets.files import JsonObject, Row
from ashnets.zoo.experiment_files import PRETRAINING, ExperimentFile, ScaleFile
from ashnets.zoo.experiment_files import SHEET as SHEET_TASK

BASELINES = ("chance", "blind")
HARDWARE = ("ashnets", "python", "torch", "transformers", "spikingjelly", "device", "threads")
TIMES = ("seconds an epoch", "hours")
REACHED = {"mlm": "epochs to mlm", "itm": "epochs to itm"}  # loss → metric


def result_rows(experiment: ExperimentFile, scale: ScaleFile, units: Sequence[Unit]) -> list[Row]:
    """A row for each row of the experiment, seed, task and metric; in the order of rows and seeds.

    ``value``, ``chance`` and ``blind`` (text alone) are shares, but for ``pre-training``, whose metrics name their
    units. They are empty if there are none. An experiment that compares costs has no times if its units were trained on
    different processors or with different numbers of threads.
    """
    order = [row.name for row in experiment.rows]
    found: list[Row] = []
    for unit in sorted(units, key=lambda unit: (order.index(unit.row.name), unit.seed)):
        for task, data, split, measured in _measured(experiment, scale, unit, units):
            found += _rows(experiment, scale, unit, (task, data, split), measured)
    processors = {(row["device"], row["threads"]) for row in found if row["metric"] in TIMES}
    if experiment.costs and len(processors) > 1:
        return [row for row in found if row["metric"] not in TIMES]
    return found


def _measured(
    experiment: ExperimentFile, scale: ScaleFile, unit: Unit, units: Sequence[Unit]
) -> list[tuple[str, str, str, JsonObject]]:
    recipe = unit.pretraining.recipe
    found = [(one.task.name, one.task.data, one.task.split, read_measured(one.file)) for one in unit.measured]
    if (trained := read_measured(unit.folder / TRAINED)) is not None:
        trained["metrics"] |= _reached(experiment, trained, unit.seed, units)
    found.append((PRETRAINING, recipe, "train", trained))
    if experiment.costs:
        found.append((PRETRAINING, recipe, "train", read_measured(unit.folder / COSTS)))
    if experiment.plot == SHEET_TASK:
        found.append((SHEET_TASK, recipe, "train", read_measured(unit.folder / SHEET)))
    return [(task, data, split, measured) for task, data, split, measured in found if measured is not None]


def _reached(experiment: ExperimentFile, trained: JsonObject, seed: int, units: Sequence[Unit]) -> JsonObject:
    """The first epoch of the last phase in which each loss is that of the reference at its end; left out if never."""
    reference = next((u for u in units if u.row.name == experiment.reference and u.seed == seed), None)
    aim = read_measured(reference.folder / TRAINED) if reference is not None else None
    if aim is None:
        return {}
    found = {}
    for loss, metric in REACHED.items():
        limit = aim["last_phase"][-1].get(loss)
        last = trained["last_phase"]
        epochs = [one["epoch"] for one in last if limit is not None and one.get(loss, math.inf) <= limit]
        if epochs:
            found[metric] = epochs[0]
    return found


def _rows(
    experiment: ExperimentFile, scale: ScaleFile, unit: Unit, about: tuple[str, str, str], measured: JsonObject
) -> list[Row]:
    task, data, split = about
    head: Row = {"experiment": experiment.name, "scale": scale.name, "row": unit.row.name, "seed": unit.seed}
    head |= {"task": task, "data": data, "split": split}
    hardware = {key: measured["environment"].get(key, "") for key in HARDWARE}
    end = {"run": unit.folder.parent.name, "weights_sha256": measured["weights_sha256"], **hardware}
    metrics = measured["metrics"]
    if "predictions" in measured:  # for the makers' server
        metrics = {"predictions": ""}
    found: list[Row] = []
    for metric, value in metrics.items():
        row: Row = {**head, "metric": metric, "value": value if value == "" else round(value, 5)}
        row["n"] = measured.get("n", "")
        for key in BASELINES:
            known = measured.get(key, {}).get(metric)
            row[key] = "" if known is None else round(known, 5)
        found.append({**row, **end})
    return found
