"""Bundling a finished run: copies, pinned digests, refused input."""

from __future__ import annotations

import hashlib
import shutil

import pytest
import yaml

from ashnets.errors import TrainingError, UnknownModelError
from ashnets.zoo import bundling

WORDS = {"license": "Apache-2.0", "training_data": "drawings"}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "recipe.yaml", "log.jsonl", "training.json"):
        (folder / "model" / name).write_text(f"content of {name}")
    return folder


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "weights.yaml").write_text("# how to read this\n{}\n")
    return folder


def test_files_and_pins(run, root):
    pins = bundling.bundle(run, "ashnets-tiny", "pictograms", root=root, **WORDS)
    folder = root / "checkpoints" / "ashnets-tiny.pictograms"
    assert sorted(pins) == ["config.json", "log.jsonl", "model.safetensors", "recipe.yaml", "training.json"]
    assert (folder / "log.jsonl").read_text() == "content of log.jsonl"
    assert pins["config.json"] == hashlib.sha256(b"content of config.json").hexdigest()
    text = (root / "weights.yaml").read_text()
    assert text.startswith("# how to read this\n")
    entry = yaml.safe_load(text)["ashnets-tiny"]["pictograms"]
    assert entry["sha256"] == pins and entry["folder"] == "checkpoints/ashnets-tiny.pictograms"
    # a second bundling replaces the folder whole: nothing of the first stays
    (folder / "stray").touch()
    (run / "model" / "log.jsonl").write_text("longer")
    bundling.bundle(run, "ashnets-tiny", "pictograms", root=root, **WORDS)
    assert (folder / "log.jsonl").read_text() == "longer" and not (folder / "stray").exists()
    bundling.bundle(run, "ashnets-tiny", "second", root=root, **WORDS)
    assert list(yaml.safe_load((root / "weights.yaml").read_text())["ashnets-tiny"]) == ["second", "pictograms"]


def test_an_unfinished_run_is_refused_and_nothing_changes(run, root):
    (run / "model" / "training.json").unlink()
    with pytest.raises(TrainingError, match=r"not a finished run.* lacks .*training\.json"):
        bundling.bundle(run, "ashnets-tiny", "pictograms", root=root, **WORDS)
    shutil.rmtree(run / "model")
    with pytest.raises(TrainingError, match="not a finished run"):
        bundling.bundle(run, "ashnets-tiny", "pictograms", root=root, **WORDS)
    assert not (root / "checkpoints").exists()
    assert (root / "weights.yaml").read_text() == "# how to read this\n{}\n"


def test_too_large_and_unknown(run, root):
    with open(run / "model" / "model.safetensors", "wb") as stream:
        stream.truncate(bundling.LIMIT + 1)
    with pytest.raises(TrainingError, match="20,000,001 bytes"):
        bundling.bundle(run, "ashnets-tiny", "pictograms", root=root, **WORDS)
    with pytest.raises(UnknownModelError, match="ashnets-tiny"):
        bundling.bundle(run, "ashnets-tyni", "pictograms", root=root, **WORDS)
