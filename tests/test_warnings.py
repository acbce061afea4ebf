"""Every command that runs a model names its silent and saturated spiking layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ashnets.cli import main
from ashnets.model.tdbn import calibrate
from ashnets.zoo.gallery_images import gallery_images
from tests.small_letters import letters_model, save_letters

SATURATED = "spiking layer conv1 is saturated: at inference 100 % of its neurons fire at a time step"
SILENT = "spiking layer conv2 is silent: at inference 0 % of its neurons fire at a time step"


@pytest.fixture(scope="module")
def images(tmp_path_factory, repository) -> Path:
    """A folder with four captioned drawings."""
    folder = tmp_path_factory.mktemp("images") / "mine"
    folder.mkdir()
    for path in sorted((repository / "zoo" / "gallery" / "images").iterdir())[:4]:
        shutil.copy(path, folder)
        (folder / path.name).with_suffix(".txt").write_text("a b c")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A small model, healthy and broken: in two layers the bias of tdBN is far above and far below the threshold."""
    found = {}
    for name in ("healthy", "broken"):
        model = letters_model(group_size=2)
        encoder = model.ashnets.vision.abstract_encoder
        spikes = [model.ashnets.vision.sample(pixels, keys) for pixels, keys in gallery_images(16)]
        calibrate(encoder, spikes, run=encoder.run)
        if name == "broken":
            with torch.no_grad():
                encoder.layers["conv1"].norm.bias.fill_(50.0)
                encoder.layers["conv2"].norm.bias.fill_(-50.0)
        found[name] = save_letters(model, tmp_path_factory.mktemp("model") / name)
    return found


def commands(images: Path, output: Path) -> dict[str, list[str]]:
    """The arguments after the model's folder."""
    return {
        "evaluate": ["retrieval", str(images), "--split", "train", "--ablate"],
        "export": ["--to", "onnx", "--output", str(output)],
        "energy": ["--images", str(images), "--profile", "45nm-int8"],
        "verify": [],
        "publish": ["--repo", "me/model", "--license", "mit", "--dry-run"],
    }


@pytest.mark.parametrize("command", ["evaluate", "export", "energy", "verify", "publish"])
@pytest.mark.parametrize("name", ["healthy", "broken"])
def test_a_command_names_the_layers(models, images, tmp_path, capsys, command, name):
    words = [command, str(models[name]), *commands(images, tmp_path / "out")[command], "--json"]
    assert not main(words)
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    warned = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    if name == "healthy":
        assert "warnings" not in found and not warned
        return
    assert [f"warning: {text}" for text in found["warnings"]] == warned
    assert sum(SATURATED in text for text in warned) == 1
    assert sum(SILENT in text for text in warned) == 1
    assert not any("conv3" in text and "saturated" in text for text in warned)


def test_an_export_without_a_spike_says_that_agreement_shows_nothing(models, tmp_path):
    """All layers are silent: only zeros agree."""
    from ashnets import from_pretrained
    from ashnets.export.exporting import export_model

    model = from_pretrained(models["broken"])
    with torch.no_grad():
        for block in model.ashnets.vision.abstract_encoder.layers.values():
            block.norm.bias.fill_(-50.0)
    report = export_model(model, "onnx", tmp_path / "out")
    assert report["mismatches"] == {"onnxruntime": 0} and report["fired"] == 0
    assert any(text.startswith("no spike leaves the spiking branch") for text in report["warnings"])
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"0 of {report['compared']:,} outputs, none of them spikes, differ in onnxruntime" in text
    assert "Warning: spiking layer conv1 is silent" in text
