"""A loopback Hub that huggingface_hub, in this process, takes for the real one; and a small finished run."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ashnets import AshNetsConfig, AshNetsProcessor
from ashnets.zoo import create

os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

_SPEC = importlib.util.spec_from_file_location("loopback", Path(__file__).with_name("loopback.py"))
assert _SPEC is not None and _SPEC.loader is not None
loopback = importlib.util.module_from_spec(_SPEC)
__import__("sys").modules["loopback"] = loopback
_SPEC.loader.exec_module(loopback)

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
SMALL = {
    "backbone_widths": [8, 12],
    "image_size": 16,
    "spiking_channels": [4, 5, 6],
    "hidden_size": 24,
    "num_concepts": 8,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "vocab_size": len(PIECES),
    "max_text_length": 8,
    "time_steps": 3,
}


def write_run(folder: Path, seed: int = 0, **sizes: int) -> Path:
    """What training leaves behind, as far as publishing reads it."""
    model = folder / "model"
    made = create("ashnets-tiny", task="retrieval", seed=seed, **{**SMALL, **sizes})
    made.save_pretrained(model)
    AshNetsProcessor.from_config(AshNetsConfig(**made.config.to_dict()), PIECES).save_pretrained(model)
    record = {
        "recipe": "letters",
        "model": "letters",
        "seed": seed,
        "pairs_seen": 120,
        "seconds": 90.0,
        "environment": {"device": "an abacus"},
        "learned_from": {"name": "letters", "splits": ["train"], "images": 142},
    }
    (model / "training.json").write_text(json.dumps(record))
    (model / "recipe.yaml").write_text(yaml.safe_dump({"name": "letters"}))
    (model / "log.jsonl").write_text('{"epoch": 1}\n')
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A run that tests only read."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(tmp_path) -> Path:
    """A run that a test may change."""
    return write_run(tmp_path / "run")


@pytest.fixture
def large_run(tmp_path) -> Path:
    """A run with more bytes than the system holds for a socket."""
    return write_run(tmp_path / "large", hidden_size=192, intermediate_size=1536, num_hidden_layers=4)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[loopback.LoopbackHub]:
    """The Hub; clients of this process speak to it with a token that may write, and an empty cache."""
    from huggingface_hub import constants

    with loopback.LoopbackHub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        template = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "write-token")
        yield served


@pytest.fixture
def offline(monkeypatch):
    """A function that takes the network away."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
