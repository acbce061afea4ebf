"""Lava's own simulation against the integer emulator, spike by spike."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch

import ashnets
from ashnets.configuration import AshNetsConfig
from ashnets.errors import AshNetsError, InputError, MissingExtraError
from ashnets.export import lava
from ashnets.export.emulator import IntegerLayer, emulate
from ashnets.export.exporting import sample_spikes
from ashnets.export.graph import SpikingGraph, from_model, quantized
from ashnets.export.lava import write_lava
from ashnets.export.lava_simulation import simulate
from ashnets.model.abstract_encoder import AbstractEncoder

pytestmark = pytest.mark.timeout(900)  # eight processes: seconds on two quiet cores, minutes on busy ones


def emulated(graph: SpikingGraph, spikes: torch.Tensor) -> dict[str, torch.Tensor]:
    layers = [IntegerLayer(x.name, x.integer, x.stride, x.padding, x.groups) for x in graph.layers]
    return {name: torch.from_numpy(fired).float() for name, fired in emulate(layers, spikes)[0].items()}


@pytest.fixture(scope="module")
def small() -> SpikingGraph:
    """Three layers over 8 × 8 pixels, T = 10: a decay that truncates, biases of both signs, groups of channels."""
    config = AshNetsConfig(
        backbone="resnet-tiny",
        backbone_widths=[4],
        image_size=8,
        spiking_channels=[4, 4],
        num_concepts=6,
        time_steps=10,
        decay_k=1300,
        hidden_size=8,
        num_attention_heads=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = AbstractEncoder(config).eval()
        for block in encoder.layers.values():
            torch.nn.init.normal_(block.norm.bias, std=0.2)
            torch.nn.init.constant_(block.norm.running_var, 0.1)
    graph = quantized(from_model(encoder, "small"))
    layer = graph.layers[1]
    halves = dataclasses.replace(layer.integer, weight=layer.integer.weight[:, :2].contiguous())
    grouped = dataclasses.replace(layer, integer=halves, weight=layer.weight[:, :2].contiguous(), groups=2)
    return dataclasses.replace(graph, layers=(graph.layers[0], grouped, graph.layers[2]))


def test_three_streamed_images_spike_as_in_the_emulator(small: SpikingGraph, tmp_path: Path) -> None:
    spikes = sample_spikes(small, 3)
    expected = emulated(small, spikes)
    found = simulate(write_lava(small, tmp_path / "network.h5"), spikes, timeout=800)
    assert list(found) == list(expected)
    for name, fired in expected.items():
        assert torch.equal(found[name], fired), f"{name}: {int((found[name] != fired).sum())} spikes differ"
        assert 0.01 < fired.mean() < 0.99


@pytest.mark.slow
def test_errors_of_lavas_own_processes_are_brought_up_and_nothing_stays(small: SpikingGraph, tmp_path: Path) -> None:
    """A network whose second layer expects another number of channels: lava fails in a child and would wait forever."""
    path = write_lava(small, tmp_path / "network.h5")
    with h5py.File(path, "r+") as file:
        groups = file["layer/2/groups"]
        groups[...] = 3
        notes = {key: value for key, value in file.attrs.items() if key != "sha256"}
        file.attrs["sha256"] = lava._digest(file, notes)
    with pytest.raises(AshNetsError, match="divisible by group"):
        simulate(path, sample_spikes(small, 1), timeout=800)
    assert not _alive(str(path))


def test_a_simulation_that_takes_too_long_is_ended(small: SpikingGraph, tmp_path: Path) -> None:
    path = write_lava(small, tmp_path / "network.h5")
    with pytest.raises(AshNetsError, match=r"did not end within 0\.01 s.*timeout="):
        simulate(path, sample_spikes(small, 3), timeout=0.01)
    assert not _alive(str(path))


def test_input_that_does_not_fit_is_refused(small: SpikingGraph, tmp_path: Path) -> None:
    path = write_lava(small, tmp_path / "network.h5")
    with pytest.raises(InputError, match=r"\(T, B, 3, 8, 8\)"):
        simulate(path, torch.zeros(2, 1, 3, 8, 4))


def test_lava_missing_is_said_with_the_remedy(
    small: SpikingGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder before site-packages, whose lava fails to import as an absent one does."""
    (tmp_path / "empty" / "lava").mkdir(parents=True)
    (tmp_path / "empty" / "lava" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "empty"))
    path = write_lava(small, tmp_path / "network.h5")
    with pytest.raises(MissingExtraError, match=r"No module named 'lava\.lib'.*-r requirements-lava\.lock"):
        simulate(path, sample_spikes(small, 1), timeout=800)


def test_the_patches_stay_in_their_process() -> None:
    assert "ByteEncoder" not in dataclasses.dataclass.__code__.co_names
    assert "lava" not in sys.modules


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_trained_encoder_whole(tmp_path: Path) -> None:
    """ashnets-tiny's own weights, its whole image of 96 × 96, T = 10, three images streamed."""
    graph = from_model(ashnets.from_pretrained("ashnets-tiny"), "ashnets-tiny")
    graph = graph if graph.precision == "int8" else quantized(graph)
    spikes = sample_spikes(graph, 3)
    expected = emulated(graph, spikes)
    found = simulate(write_lava(graph, tmp_path / "network.h5"), spikes, timeout=3500)
    for name, fired in expected.items():
        assert torch.equal(found[name], fired), f"{name}: {int((found[name] != fired).sum())} spikes differ"
        assert fired.sum() > 0


def _alive(part: str) -> bool:
    listing = subprocess.run(["ps", "-eo", "pid,args"], check=True, capture_output=True, text=True).stdout
    return any(part in line and str(os.getpid()) not in line.split()[:1] for line in listing.splitlines())
