"""The files of experiments: rows as changes of one base recipe, what is measured, and the paper's numbers.

    experiment, scale = read_experiment("table-11"), read_scale("lab")

``experiments/NAME.yaml`` describes an experiment for every scale, ``experiments/scales/NAME.yaml`` a scale: the base
recipe, the tasks and the names of their metrics. Files of one's own have the same form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ashnets.errors import ConfigurationError, did_you_mean
from ashnets.files import JsonObject, read_csv
from ashnets.zoo.registry import ROOT, read_yaml

FOLDER = ROOT / "experiments"
SCALES = ("lab", "paper")
PRETRAINING, SHEET = "pre-training", "sheet"  # what is measured of the pre-training, and of a contact sheet
COSTS = {  # measure of pre-training → its metric
    "training epochs": "epochs",
    "seconds an epoch": "seconds an epoch",
    "memory (MB)": "memory (MB)",
    "model parameters (M)": "parameters (M)",
    "loss MLM": "loss mlm",
    "loss MVM": "loss mvm",
    "loss match": "loss itm",
    "epochs to MLM": "epochs to mlm",
    "epochs to match": "epochs to itm",
}
ALIKE = {"random similarity": "random", "similar similarity": "similar"}  # measure of a sheet → its metric
PLOTS = ("bars", "lines", "sheet")


@dataclass(frozen=True)
class RowFile:
    """One row.

    Attributes:
        name: in a table of the paper, the text of its first column.
        changes: key → value of the base recipe, as ``--set``, at every scale.
        lab, paper: further changes at one scale.
        without: objectives that the row does not train.
        tuning: changes of the recipes that fine-tune with a classifier.
        scales: where there is such a row.
    """

    name: str
    changes: JsonObject = field(default_factory=dict)
    lab: JsonObject = field(default_factory=dict)
    paper: JsonObject = field(default_factory=dict)
    without: tuple[str, ...] = ()
    tuning: JsonObject = field(default_factory=dict)
    scales: tuple[str, ...] = SCALES

    def changes_at(self, scale: str) -> JsonObject:
        """The changes at a scale."""
        return {**self.changes, **(self.lab if scale == "lab" else self.paper)}


@dataclass(frozen=True)
class Claim:
    """What the paper says, or what is asked: row ``better`` is better than row ``worse``.

    Attributes:
        measures: those it is about; all by default.
        lower: a lower value is the better one.
    """

    text: str
    better: str
    worse: str
    measures: tuple[str, ...] = ()
    lower: bool = False


@dataclass(frozen=True)
class ExperimentFile:
    """One experiment.

    Attributes:
        measures: what is measured → the paper's column for it, or None.
        table, figure: its number in the paper.
        plot: ``bars``, ``lines`` over the rows' names, or ``sheet``, a contact sheet.
        axis: label of the x axis of lines.
        costs: also measure the memory of pre-training.
        reference: the row whose final losses the others are to reach.
    """

    name: str
    title: str
    measures: dict[str, str | None]
    rows: tuple[RowFile, ...]
    claims: tuple[Claim, ...] = ()
    table: int | None = None
    figure: int | None = None
    plot: str = "bars"
    axis: str = ""
    costs: bool = False
    reference: str | None = None

    @property
    def place(self) -> str:
        """Where it is in the paper, in words."""
        if self.table is not None:
            return f"Table {self.table} of the paper"
        return f"Fig. {self.figure} of the paper" if self.figure is not None else "not one of the paper's"

    def rows_at(self, scale: str) -> list[RowFile]:
        """The rows of a scale."""
        return [row for row in self.rows if scale in row.scales]


@dataclass(frozen=True)
class TaskFile:
    """A task of a scale.

    Attributes:
        name: its key in the scale's file.
        task, data: as for ``ashnets finetune`` and ``ashnets evaluate``.
        recipe: of fine-tuning; None measures the pre-trained model itself.
        folder, images: below ``--data``.
        split: that is measured.
        sample: items that are measured; 0 takes all.
        changes: of the recipe.
        predictions: the answers are secret: predictions are written, and nothing is measured.
    """

    name: str
    task: str
    data: str
    split: str
    recipe: str | None = None
    folder: str = "."
    images: str | None = None
    sample: int = 0
    changes: JsonObject = field(default_factory=dict)
    predictions: bool = False


@dataclass(frozen=True)
class ScaleFile:
    """A scale.

    Attributes:
        recipe, changes: the base recipe, and its changes for all rows.
        data: default of ``--data``.
        corpus: folder of the pre-training data, below ``--data``.
        measures: name → task and metric.
        like: ``lab`` or ``paper``: which rows and changes of rows it takes.
    """

    name: str
    recipe: str
    changes: JsonObject
    data: str
    corpus: str
    tasks: dict[str, TaskFile]
    measures: dict[str, tuple[str, str]]
    like: str = "lab"

    def metric(self, measure: str) -> tuple[str, str] | None:
        """Task and metric of a measure; None if this scale has no such task."""
        if measure in COSTS:
            return PRETRAINING, COSTS[measure]
        if measure in ALIKE:
            return SHEET, ALIKE[measure]
        return self.measures.get(measure)

    def tasks_of(self, experiment: ExperimentFile) -> list[TaskFile]:
        """The tasks that the measures of an experiment need.

        Raises:
            ConfigurationError: none of its measures exists at this scale.
        """
        found = [self.metric(measure) for measure in experiment.measures]
        if not any(found):
            raise ConfigurationError(
                f"{experiment.name} has no task at scale {self.name}, which has no data of the kind: run it at another "
                "scale"
            )
        names = dict.fromkeys(one[0] for one in found if one is not None)
        return [self.tasks[name] for name in names if name in self.tasks]


def experiment_names() -> list[str]:
    """The names of all experiments: tables, figures, others."""

    def order(name: str) -> tuple[int, int, str]:
        kind, _, number = name.partition("-")
        known = ("table", "figure")
        return (known.index(kind), int(number), "") if kind in known else (len(known), 0, name)

    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=order)


def read_experiment(name: str) -> ExperimentFile:
    """An experiment by name, or from a file.

    Raises:
        ConfigurationError: no such experiment; or its file has an unknown key, row or measure.
    """
    names = experiment_names()
    path = FOLDER / f"{name}.yaml" if name in names else Path(name)
    if not path.is_file():
        raise ConfigurationError(f"no experiment {name!r}.{did_you_mean(name, names)} There are {', '.join(names)}.")
    data = read_yaml(path)
    rows = tuple(_build(RowFile, {**row, "name": str(row["name"])}, path) for row in data.pop("rows"))
    claims = tuple(_build(Claim, claim, path) for claim in data.pop("claims"))
    found = _build(ExperimentFile, {"name": path.stem, "rows": rows, "claims": claims, **data}, path)
    known = [row.name for row in rows]
    asked = [row for claim in claims for row in (claim.better, claim.worse)] + [found.reference or known[0]]
    if strange := sorted({*asked} - {*known}):
        raise ConfigurationError(f"{path}: there is no row {strange[0]!r}; there are {', '.join(known)}")
    if strange := sorted({one for claim in claims for one in claim.measures} - {*found.measures}):
        raise ConfigurationError(f"{path}: a claim is about {strange[0]!r}, which is none of the measures")
    if found.plot not in PLOTS:
        raise ConfigurationError(f"{path}: plot={found.plot!r} is not one of {', '.join(PLOTS)}")
    return found


def read_scale(name: str) -> ScaleFile:
    """A scale by name, or from a file. Raises ConfigurationError if there is none."""
    path = FOLDER / "scales" / f"{name}.yaml" if name in SCALES else Path(name)
    if not path.is_file():
        raise ConfigurationError(f"scale={name!r} is neither one of {', '.join(SCALES)} nor a file")
    data = read_yaml(path)
    tasks = {key: _build(TaskFile, {"name": key, **task}, path) for key, task in data.pop("tasks").items()}
    measures = {key: (task, metric) for key, (task, metric) in data.pop("measures").items()}
    return _build(ScaleFile, {"name": path.stem, "tasks": tasks, "measures": measures, **data}, path)


def paper_cells(experiment: ExperimentFile) -> dict[str, dict[str, str]]:
    """Row → measure → the paper's number, as printed; empty where the paper prints none."""
    if experiment.table is None:
        return {}
    (path,) = (ROOT / "paper").glob(f"table-{experiment.table:02d}-*.csv")
    lines = {next(iter(cells.values())): cells for cells in read_csv(path)}
    return {
        row.name: {key: lines[row.name][column] for key, column in experiment.measures.items() if column}
        for row in experiment.rows
        if row.name in lines
    }


def _build(kind: type[Any], data: Mapping[str, Any], path: Path) -> Any:
    fields = {one.name: one for one in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(fields)):
        raise ConfigurationError(f"{path}: unknown key {unknown[0]}. Known: {', '.join(fields)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
