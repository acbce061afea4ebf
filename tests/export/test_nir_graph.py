"""NIR: the file, and what spikingjelly, snntorch and norse make of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
import torch

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, WeightsError
from ashnets.export.graph import SpikingGraph, from_model, quantized
from ashnets.export.nir_graph import LOADERS, compare_nir, read_nir, run_nir, write_nir
from ashnets.model.abstract_encoder import AbstractEncoder


@pytest.fixture(scope="module")
def halving(config: AshNetsConfig, encoder: AbstractEncoder) -> SpikingGraph:
    """β = 1/2, as every registered model has it: all factors are powers of two."""
    other = AbstractEncoder(AshNetsConfig(**{**config.to_dict(), "decay_k": 2048, "threshold": 1.0})).eval()
    other.load_state_dict(encoder.state_dict())
    return from_model(other, "small")


@pytest.fixture(scope="module")
def exported(halving: SpikingGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nir(halving, tmp_path_factory.mktemp("nir") / "network.nir")


@pytest.mark.parametrize("load", LOADERS.values())
def test_every_spike_is_that_of_the_graph(load, exported: Path, halving: SpikingGraph, spikes: torch.Tensor) -> None:
    expected = halving.run(spikes)[0]["concepts"]
    assert torch.equal(run_nir(load(exported), spikes), expected)
    assert 0.01 < expected.mean() < 0.9
    # The comparison can see a difference: another image's spikes are not these.
    assert not torch.equal(run_nir(load(exported), spikes.flip(1)), expected)


def test_other_decays_are_compared_and_counted(graph: SpikingGraph, spikes: torch.Tensor, tmp_path: Path) -> None:
    """β = 1 − 1400/4096 rounds in the readers: few spikes may differ, and the comparison counts them."""
    found = compare_nir(write_nir(graph, tmp_path / "network.nir"), graph, spikes)
    assert set(found) == {"spikingjelly", "snntorch", "norse"}
    assert max(found.values()) < spikes.shape[0] * spikes.shape[1] * graph.layers[-1].neurons / 1000


@pytest.mark.parametrize("load", LOADERS.values())
def test_a_neuron_exactly_at_its_threshold_stays_silent(load, halving: SpikingGraph, tmp_path: Path) -> None:
    layer = halving.layers[-1]
    one = dataclasses.replace(
        layer,
        weight=torch.ones(2, 1, 1, 1),
        bias=torch.tensor([0.0, 2.0**-20]),
        input_shape=(1, 1, 1),
        output_shape=(2, 1, 1),
        theta=1.0,
    )
    graph = dataclasses.replace(halving, layers=(one,))
    fired = run_nir(load(write_nir(graph, tmp_path / "one.nir")), torch.ones(1, 1, 1, 1, 1))
    assert fired.flatten().tolist() == [0.0, 1.0]


def test_the_file_is_plain_nir(exported: Path, halving: SpikingGraph) -> None:
    found = nir.read(exported)
    assert len(found.nodes) == 10
    for layer in halving.layers:
        convolution, neuron = found.nodes[f"{layer.name}_conv"], found.nodes[layer.name]
        assert isinstance(convolution, nir.Conv2d)
        assert isinstance(neuron, nir.LIF)
        assert np.array_equal(convolution.weight, 2 * layer.weight.numpy())
        assert neuron.tau.shape == layer.output_shape
        assert np.all(neuron.tau == 2e-4)
        assert np.all(neuron.v_threshold == 1)
        assert np.all(neuron.r == 1)
    assert len(found.edges) == 9


def test_what_nir_cannot_hold_is_refused(graph: SpikingGraph, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"conv1 is in integers.*lava or onnx"):
        write_nir(quantized(graph), tmp_path / "network.nir")
    forgetful = dataclasses.replace(graph, layers=(dataclasses.replace(graph.layers[0], beta=0.0), *graph.layers[1:]))
    with pytest.raises(ConfigurationError, match=r"β=0.*decay_k"):
        write_nir(forgetful, tmp_path / "network.nir")
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_refused(exported: Path, tmp_path: Path) -> None:
    data, cut = exported.read_bytes(), tmp_path / "cut.nir"
    for length in [*range(0, len(data), len(data) // 25), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="export it again"):
            read_nir(cut)


def test_a_flipped_bit_is_noticed_or_harmless(exported: Path, tmp_path: Path) -> None:
    """HDF5 files contain bytes that are never read. A change of any byte that is read must be an error."""
    data, edited, right = exported.read_bytes(), tmp_path / "edited.nir", read_nir(exported)
    arrays = {(n, k): v for n, node in right.nodes.items() for k, v in vars(node).items() if isinstance(v, np.ndarray)}
    # the first byte of each array that HDF5 keeps in one piece, and places anywhere
    held = [data.find(v.tobytes()) for v in arrays.values() if v.nbytes > 64]
    draw, refused = np.random.default_rng(0), 0
    for place in [*draw.integers(len(data), size=60), *(place for place in held if place >= 0)]:
        edited.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            found = read_nir(edited)
        except WeightsError:
            refused += 1
        else:
            assert all(np.array_equal(vars(found.nodes[n])[k], v) for (n, k), v in arrays.items())
    assert refused > 5


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("node/nodes/conv2/v_threshold", 0.5, "sha256"),
        ("node/nodes/conv1_conv/stride", 1, "sha256"),
        ("node/metadata/time_steps", "7", "sha256"),
        ("node/metadata/format", "ashnets-nir/99", "'ashnets-nir/99'"),
    ],
)
def test_an_edited_file_is_refused(key: str, value: object, said: str, exported: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited.nir"
    edited.write_bytes(exported.read_bytes())
    with h5py.File(edited, "r+") as file:
        file[key][...] = value
    with pytest.raises(WeightsError, match=f"({said}|cannot read).*export it again"):
        read_nir(edited)


def test_what_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.nir is no file"):
        read_nir(tmp_path / "absent.nir")
    nodes = {"input": nir.Input({"input": np.array([2])}), "output": nir.Output({"output": np.array([2])})}
    nir.write(tmp_path / "other.nir", nir.NIRGraph(nodes, [("input", "output")], metadata={}))
    with pytest.raises(WeightsError, match="format is None"):
        read_nir(tmp_path / "other.nir")
