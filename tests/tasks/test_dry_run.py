"""`ashnets finetune --dry-run`: numbers against independent counts for every task; nothing is written."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ashnets.cli import app
from ashnets.data.pictograms.tasks import open_pictogram_task
from ashnets.errors import DataError
from ashnets.model.heads import head_class
from ashnets.runs import finetune
from ashnets.tasks.data import open_task_data
from ashnets.tasks.items import ItemBatches
from ashnets.tasks.training_items import Items

DATA = {
    "vqa": "pictogram-questions",
    "nlvr2": "pictogram-pairs",
    "ve": "pictogram-entailment",
    "retrieval": "pictogram-retrieval",
}


@pytest.mark.parametrize("task", DATA)
def test_a_dry_run_describes_the_run(task, drawings, write_recipe, tmp_path, monkeypatch):
    measured = []
    plain = ItemBatches.read
    monkeypatch.setattr(ItemBatches, "read", lambda self, number: measured.append(plain(self, number)) or measured[-1])
    recipe = write_recipe(task, DATA[task])
    before = sorted(tmp_path.iterdir())
    plan = finetune(task, recipe, data=drawings, output=tmp_path / "run", dry_run=True, progress=False)
    assert sorted(tmp_path.iterdir()) == before
    items = len(open_pictogram_task(DATA[task], drawings).records("train"))
    pairs = 8 if task == "retrieval" else 32
    assert (plan["task"], plan["data"], plan["items"]) == (task, DATA[task], items)
    assert plan["steps_per_epoch"] == -(-items // pairs) and plan["epochs"] == 2
    (phase,) = plan["phases"].values()
    assert phase["flops_run"] == 2 * plan["steps_per_epoch"] * phase["flops_a_step"] > 0
    assert phase["parameters_trainable"] == phase["parameters"] and phase["bytes_activations"] > 0
    if task != "retrieval":
        assert {len(batch.input_ids) for batch in measured} == {min(pairs, items)}, "the largest micro-batch"


def test_its_parameters_are_those_of_the_model(drawings, write_recipe, tmp_path, monkeypatch):
    made = []
    plain = Items.__init__

    def note(self, recipe, config, *rest):
        made.append(config)
        plain(self, recipe, config, *rest)

    monkeypatch.setattr(Items, "__init__", note)
    plan = finetune(
        "ve", write_recipe("ve", DATA["ve"]), data=drawings, output=tmp_path / "run", dry_run=True, progress=False
    )
    counted = sum(parameter.numel() for parameter in head_class("ve")(made[0]).parameters())
    assert plan["phases"]["all"]["parameters"] == counted


def test_the_command_prints_json_and_reports_missing_images(benchmarks, write_recipe, tmp_path):
    recipe = write_recipe("ve", "snli-ve", train=["train"], valid="test")
    words = ["finetune", "ve", str(recipe), "--data", str(benchmarks["snli-ve"]), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["items"] == len(open_task_data("snli-ve", benchmarks["snli-ve"]).records("train"))
    done = CliRunner().invoke(app, [*words, "--dry-run", "--images", str(tmp_path)])
    assert isinstance(done.exception, DataError) and "5 of 5 images are missing" in str(done.exception)
    assert not (tmp_path / "run").exists()
