"""A local Hub that huggingface_hub uses in this process instead of the real one; and a small finished run."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.small_letters import letters_model, save_letters

os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

_SPEC = importlib.util.spec_from_file_location("loopback", Path(__file__).with_name("loopback.py"))
assert _SPEC is not None and _SPEC.loader is not None
loopback = importlib.util.module_from_spec(_SPEC)
__import__("sys").modules["loopback"] = loopback
_SPEC.loader.exec_module(loopback)


def write_run(folder: Path, seed: int = 0, **sizes: int) -> Path:
    """Write the files of a finished run that publishing reads."""
    model = save_letters(letters_model(seed, **sizes), folder / "model")
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
    """A run that tests must not change."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(tmp_path) -> Path:
    """A run that a test may change."""
    return write_run(tmp_path / "run")


@pytest.fixture
def large_run(tmp_path) -> Path:
    """A run that is larger than the system's buffer of a socket."""
    return write_run(tmp_path / "large", hidden_size=192, intermediate_size=1536, num_hidden_layers=4)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[loopback.LoopbackHub]:
    """The local Hub; clients in this process use it with a write token and an empty cache."""
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
    """A function that turns the network off."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
