"""The netx file: its contents, refused graphs, and damage that is noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ashnets.errors import ConfigurationError, WeightsError
from ashnets.export.graph import SpikingGraph, quantized
from ashnets.export.lava import read_lava, write_lava


@pytest.fixture(scope="module")
def integer(graph: SpikingGraph) -> SpikingGraph:
    return quantized(graph)


@pytest.fixture(scope="module")
def exported(integer: SpikingGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lava(integer, tmp_path_factory.mktemp("lava") / "network.h5")


def test_the_file_is_what_netx_reads(exported: Path, integer: SpikingGraph) -> None:
    with h5py.File(exported) as file:
        assert len(file["layer"]) == 5
        assert file["layer/0/type"][()] == b"input"
        assert file["layer/0/shape"][()].tolist() == [3, 40, 40]
        for index, layer in enumerate(integer.layers, start=1):
            stored, constants = file[f"layer/{index}"], layer.integer
            assert constants is not None
            assert stored["type"][()] == b"conv"
            assert stored["shape"][()].tolist() == list(layer.output_shape)
            assert [stored[k][()].tolist() for k in ("stride", "padding", "dilation")] == [
                list(layer.stride),
                list(layer.padding),
                list(layer.dilation),
            ]
            assert np.array_equal(stored["weight"][()], constants.weight.numpy())
            assert np.array_equal(stored["bias"][()], constants.bias.numpy())
            assert stored["neuron/type"][()] == b"CUBA"
            assert stored["neuron/iDecay"][()] == 4096
            assert stored["neuron/vDecay"][()] == 1400
            assert stored["neuron/vThMant"][()] == round(layer.theta / layer.weight_step)


def test_the_graph_comes_back(exported: Path, integer: SpikingGraph, spikes: torch.Tensor) -> None:
    found = read_lava(exported)
    for one, other in zip(found.layers, integer.layers, strict=True):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.integer.weight, other.integer.weight)
        assert (one.theta, one.beta, one.name) == (other.theta, other.beta, other.name)
    assert dataclasses.replace(found, layers=()) == dataclasses.replace(integer, layers=())
    assert torch.equal(found.run(spikes)[0]["concepts"], integer.run(spikes)[0]["concepts"])


def test_the_same_graph_gives_the_same_bytes(exported: Path, integer: SpikingGraph, tmp_path: Path) -> None:
    assert write_lava(integer, tmp_path / "network.h5").read_bytes() == exported.read_bytes()


def changed(graph: SpikingGraph, **constants: object) -> SpikingGraph:
    layer = graph.layers[1]
    broken = dataclasses.replace(layer, integer=dataclasses.replace(layer.integer, **constants))
    return dataclasses.replace(graph, layers=(graph.layers[0], broken, *graph.layers[2:]))


@pytest.mark.parametrize(
    ("constants", "named"),
    [
        ({"weight": torch.full((8, 4, 3, 3), 3, dtype=torch.int32)}, "even numbers in -256..254"),
        ({"weight": torch.full((8, 4, 3, 3), 256, dtype=torch.int32)}, "even numbers in -256..254"),
        ({"weight": torch.full((8, 600, 3, 3), -256, dtype=torch.int32)}, "add up to 1382400"),
        ({"bias": torch.full((8,), 4097, dtype=torch.int32)}, "bias of 4097"),
        ({"threshold": 1 << 17}, "vThMant=131072"),
        ({"decay": 4097}, "vDecay=4097"),
    ],
)
def test_what_the_chip_cannot_hold_is_refused(
    constants: dict, named: str, integer: SpikingGraph, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=f"conv2.*{named}"):
        write_lava(changed(integer, **constants), tmp_path / "network.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_in_floats_is_refused_with_the_way_out(graph: SpikingGraph, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"conv1 is in floats.*--quantize"):
        write_lava(graph, tmp_path / "network.h5")


def test_a_truncated_file_is_refused(exported: Path, tmp_path: Path) -> None:
    data, cut = exported.read_bytes(), tmp_path / "cut.h5"
    for length in [*range(0, len(data), len(data) // 25), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="export it again"):
            read_lava(cut)


def test_a_flipped_bit_is_noticed_or_harmless(exported: Path, integer: SpikingGraph, tmp_path: Path) -> None:
    """HDF5 files contain bytes that are never read. A change of any byte that is read must be an error."""
    data, edited = exported.read_bytes(), tmp_path / "edited.h5"
    refused = 0
    for place in np.random.default_rng(0).integers(len(data), size=60):
        edited.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            found = read_lava(edited)
        except WeightsError:
            refused += 1
        else:
            for one, other in zip(found.layers, integer.layers, strict=True):
                assert torch.equal(one.integer.weight, other.integer.weight)
                assert torch.equal(one.integer.bias, other.integer.bias)
    assert refused > 5


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("layer/2/neuron/vThMant", 7, "sha256"),
        ("layer/1/stride", [1, 1], "sha256"),
        ("format", "ashnets-netx/99", "'ashnets-netx/99'"),
        ("carry", "none", "sha256"),
    ],
)
def test_an_edited_file_is_refused(key: str, value: object, said: str, exported: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited.h5"
    edited.write_bytes(exported.read_bytes())
    with h5py.File(edited, "r+") as file:
        if key in file:
            file[key][...] = value
        else:
            file.attrs[key] = value
    with pytest.raises(WeightsError, match=f"{said}.*export it again"):
        read_lava(edited)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.h5 is no file"):
        read_lava(tmp_path / "absent.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["layer"] = 1
    with pytest.raises(WeightsError, match="format is None"):
        read_lava(tmp_path / "other.h5")
