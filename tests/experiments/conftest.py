"""A small scale: recipes and drawings with which a row takes seconds."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from tests.small_tasks import RECIPE, SMALL_MODEL, benchmarks, drawings
from tests.training.conftest import RECIPE as PRETRAINING

__all__ = ["benchmarks", "drawings"]

EXPERIMENT = {
    "title": "Two rows",
    "table": 11,
    "costs": True,
    "reference": "ANNs",
    "measures": {"IR": "MSCOCO 1K IR", "VE": "SNLI-VE test", "epochs to MLM": None},
    "rows": [
        {"name": "ANNs", "changes": {"changes.summary_ratio": "ann"}},
        {"name": "ASH-Nets", "lab": {"changes.time_steps": 1}, "paper": {"changes.time_steps": 7}},
    ],
    "claims": [{"text": "the spiking branch helps", "better": "ASH-Nets", "worse": "ANNs"}],
}


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A folder with two small recipes, ``small.yaml`` (a scale) and ``two.yaml`` (an experiment)."""
    folder = tmp_path_factory.mktemp("small")
    pretraining = copy.deepcopy(PRETRAINING)
    for phase in pretraining["phases"]:
        phase["epochs"] = 1
    pretraining |= {"name": "small-pretraining", "changes": SMALL_MODEL, "gauge_every": 0}
    tuning = copy.deepcopy(RECIPE)
    tuning["phases"][0] |= {"epochs": 1, "objectives": {"ve": 1.0}}
    tuning |= {"name": "small-tuning", "task": "ve", "data": "pictogram-entailment", "weights": "pretrained"}
    tuning |= {"changes": {}, "batch_size": 8}
    for recipe in (pretraining, tuning):
        (folder / f"{recipe['name']}.yaml").write_text(yaml.safe_dump(recipe))
    tasks = {
        "retrieval": {"task": "retrieval", "data": "pictogram-retrieval", "split": "test-twitter-seen"},
        "ve": {
            "task": "ve",
            "recipe": str(folder / "small-tuning.yaml"),
            "data": "pictogram-entailment",
            "split": "test-twitter-seen",
            "sample": 20,
            "changes": {"train_items": 8},
        },
    }
    scale = {
        "recipe": str(folder / "small-pretraining.yaml"),
        "changes": {},
        "data": "nowhere",
        "corpus": ".",
        "tasks": tasks,
        "measures": {"IR": ["retrieval", "text_to_image R@1"], "VE": ["ve", "accuracy"]},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(scale))
    (folder / "two.yaml").write_text(yaml.safe_dump(EXPERIMENT, allow_unicode=True))
    return folder
