"""A model of precision int8, fine-tuned and published: every format gives exactly the spikes of its forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import ashnets
from ashnets.cli.export import export
from ashnets.configuration import AshNetsConfig
from ashnets.export.emulator import IntegerLayer, emulate
from ashnets.export.exporting import sample_spikes
from ashnets.export.graph import from_model
from ashnets.export.lava import read_lava
from ashnets.export.lava_simulation import simulate
from ashnets.export.onnx.model import TOLERANCE, largest_difference, run_onnx_model, sample_inputs, write_onnx_model
from ashnets.export.onnx.running import run_onnx
from ashnets.model import HEADS
from ashnets.model.tdbn import calibrate


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated, trained for some steps through its integers, saved."""
    config = AshNetsConfig(
        backbone="resnet-tiny",
        backbone_widths=[4, 4],
        image_size=16,
        hidden_size=8,
        num_concepts=6,
        time_steps=5,
        spiking_channels=[4, 4, 6],
        decay_k=1300,
        precision="int8",
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=50,
        max_text_length=12,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HEADS["retrieval"](config)
        encoder = model.ashnets.vision.abstract_encoder
        for block in encoder.layers.values():
            torch.nn.init.normal_(block.norm.bias, std=0.3)
        spikes = (torch.rand(5, 8, 3, 16, 16) < 0.5).float()
        wanted = torch.rand(8, 4, 6) * 4
    calibrate(encoder, [spikes], run=encoder.run)
    before = [block.constants() for block in encoder.layers.values()]
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        (encoder(spikes).response - wanted).square().mean().backward()
        optimizer.step()
    for old, block in zip(before, encoder.layers.values(), strict=True):
        assert not torch.equal(old.weight, block.constants().weight), "training moved no integer"
    folder = tmp_path_factory.mktemp("trained") / "model"
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(published: Path):
    return ashnets.from_pretrained(published)


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command("export")(export)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output if done.exit_code == 0 else str(done.exception)


def own(model, spikes: torch.Tensor) -> dict[str, torch.Tensor]:
    """By the forward that it was trained with."""
    with torch.no_grad():
        fired, _ = model.ashnets.vision.abstract_encoder.run(spikes)
    assert all(0.01 < out.mean() < 0.99 for out in fired.values()), "a silent layer would prove nothing"
    return fired


@pytest.mark.parametrize("to", ["onnx", "onnx-sequence", "onnx-unrolled", "lava"])
def test_each_format_fires_as_the_model_does(to: str, published: Path, model, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    code, said = run(str(published), "--to", to, "--output", str(folder), "--json")
    assert code == 0, said
    report = json.loads(said)
    assert (report["precision"], report["quantization"]) == ("int8", "in training")
    with np.load(folder / "sample.npz", allow_pickle=False) as sample:
        spikes = torch.from_numpy(sample["spikes"]).float()
        expected = {name: torch.from_numpy(sample[f"expected_{name}"]).float() for name in own(model, spikes)}
    if to == "lava":
        layers = [IntegerLayer(x.name, x.integer, x.stride, x.padding) for x in read_lava(folder / "network.h5").layers]
        found = {name: torch.from_numpy(fired).float() for name, fired in emulate(layers, spikes)[0].items()}
    else:
        found, _ = run_onnx(folder / "network.onnx", spikes)
    for name, fired in own(model, spikes).items():
        assert torch.equal(found[name], fired)
        assert torch.equal(expected[name], fired)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lava_itself_fires_as_the_model_does(published: Path, model, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    code, said = run(str(published), "--to", "lava", "--simulate", "800", "--output", str(folder), "--json")
    assert code == 0, said
    report = json.loads(said)
    assert report["mismatches"] == {"emulator of the chip": 0, "lava's CPU simulation": 0}
    assert report["not_run"] == {}
    spikes = sample_spikes(from_model(model))
    found = simulate(folder / "network.h5", spikes, timeout=800)
    assert all(torch.equal(found[name], fired) for name, fired in own(model, spikes).items())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_model_too(model, tmp_path: Path) -> None:
    """Against the model as it is: its spikes are the graph's, so only the ordinary parts may round otherwise."""
    path = write_onnx_model(model, tmp_path / "model.onnx")
    inputs = sample_inputs(model, 2, 5)
    own(model, inputs["spikes"])
    assert max(largest_difference(model, run_onnx_model(path, inputs), inputs, folded=False).values()) < TOLERANCE


def test_rounding_it_again_and_nir_are_refused(published: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "exported")
    code, said = run(str(published), "--to", "lava", "--quantize", "--output", folder)
    assert code != 0
    assert "integer graph already: export it as it is" in said
    code, said = run(str(published), "--to", "nir", "--output", folder)
    assert code != 0
    assert "NIR has no neuron whose decay truncates" in said
    assert list(tmp_path.iterdir()) == []
