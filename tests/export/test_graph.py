"""Folding, the lattice of exact sums, and the graph's own execution."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, InputError
from ashnets.export.emulator import emulate, integer_layers
from ashnets.export.folding import EXACT, fold, on_lattice
from ashnets.export.graph import SpikingGraph, cropped, from_model, quantized
from ashnets.files import write_atomically
from ashnets.model import AshNetsModel
from ashnets.model.abstract_encoder import AbstractEncoder


@pytest.mark.parametrize("bias", [False, True])
def test_fold_is_convolution_then_normalization(bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=bias).double()
    norm = nn.BatchNorm2d(6).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 2)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    weight, shift = fold(conv, norm)
    folded = torch.nn.functional.conv2d(x, weight, shift, stride=2, padding=1, groups=2)
    torch.testing.assert_close(folded, norm(conv(x)), rtol=1e-12, atol=1e-12)


@given(
    weights=st.lists(
        st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=4, max_size=4), min_size=1, max_size=5
    ),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_no_sum_on_the_lattice_leaves_float32(weights: list[list[float]], scale: float) -> None:
    weight = torch.tensor(weights, dtype=torch.float64).view(-1, 4, 1, 1) * scale
    bias = weight[:, 0, 0, 0] * 0.7
    rounded, shift, step = on_lattice(weight, bias)
    terms = torch.cat([rounded.flatten(1), shift[:, None]], 1).double() / step
    assert torch.equal(terms, terms.round())
    assert terms.clamp_min(0).sum(1).max() <= EXACT
    assert -terms.clamp_max(0).sum(1).min() <= EXACT
    assert (rounded.double() - weight).abs().max() <= step / 2
    # The step is as fine as it can be: with half of it some sum would not fit, but for the rounding itself.
    largest = torch.cat([weight.flatten(1), bias[:, None]], 1)
    largest = torch.maximum(largest.clamp_min(0).sum(1), -largest.clamp_max(0).sum(1)).max()
    assert largest < 1e-30 or largest / (step / 2) > EXACT - 8


def test_run_is_the_recursion_in_float64_sums_and_in_any_order(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    """Sums in float64, and in float32 with the channels shuffled, give the same bits: nothing was rounded."""
    outputs, state = graph.run(spikes)
    torch.manual_seed(0)
    x64 = x32 = spikes
    for layer, final in zip(graph.layers, state, strict=True):
        order = torch.randperm(layer.input_shape[0])
        geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        fired = []
        v = torch.zeros(spikes.shape[1], *layer.output_shape)
        for t in range(len(spikes)):
            current = torch.conv2d(x64[t].double(), layer.weight.double(), layer.bias.double(), *geometry)
            shuffled = torch.conv2d(x32[t][:, order], layer.weight[:, order], layer.bias, *geometry)
            assert torch.equal(current, shuffled.double())
            h = v * layer.beta + current.float()
            fired.append((h > layer.theta).float())
            v = h * (1 - fired[-1])
        x64 = x32 = torch.stack(fired)
        assert torch.equal(x64, outputs[layer.name])
        assert torch.equal(v, final)
        assert 0.01 < x64.mean() < 0.9  # a silent layer would prove nothing


@torch.no_grad()
def test_run_equals_the_encoder_where_folding_rounds_nothing(
    dyadic_encoder: AbstractEncoder, spikes: torch.Tensor
) -> None:
    expected, state = dyadic_encoder.run(spikes)
    outputs, membranes = from_model(dyadic_encoder).run(spikes)
    for name in expected:
        assert torch.equal(outputs[name], expected[name])
        assert 0.005 < expected[name].mean() < 0.995
    assert all(map(torch.equal, membranes, state))


@torch.no_grad()
def test_run_is_near_the_encoder_as_trained(
    graph: SpikingGraph, encoder: AbstractEncoder, spikes: torch.Tensor
) -> None:
    expected, _ = encoder.run(spikes)
    outputs, _ = graph.run(spikes)
    assert list(outputs) == list(expected)
    for name in expected:
        assert (outputs[name] != expected[name]).float().mean() < 1e-3


def test_a_stream_is_one_sequence(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    whole, end = graph.run(spikes)
    first, state = graph.run(spikes[:2])
    second, last = graph.run(spikes[2:], state)
    for name in whole:
        assert torch.equal(torch.cat([first[name], second[name]]), whole[name])
    assert all(map(torch.equal, last, end))


def test_what_the_graph_says_of_itself(graph: SpikingGraph, config: AshNetsConfig) -> None:
    assert [layer.name for layer in graph.layers] == ["conv1", "conv2", "conv3", "concepts"]
    assert [layer.output_shape for layer in graph.layers] == [(4, 20, 20), (8, 10, 10), (12, 5, 5), (20, 5, 5)]
    assert graph.input_shape == (3, 40, 40)
    assert graph.time_steps == 6
    assert graph.encoding.seed == 3
    assert all(layer.beta == pytest.approx(1 - 1400 / 4096) for layer in graph.layers)
    assert all(layer.theta == pytest.approx(0.8) for layer in graph.layers)
    assert graph.provenance["model"] == "small"


def test_a_whole_model_gives_the_graph_of_its_branch(config: AshNetsConfig) -> None:
    model = AshNetsModel(config)
    whole, part = from_model(model), from_model(model.vision.abstract_encoder)
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(whole.layers, part.layers, strict=True))


def test_a_model_without_a_spiking_branch_is_refused(config: AshNetsConfig) -> None:
    without = AshNetsConfig(**{**config.to_dict(), "summary_ratio": "ann"})
    with pytest.raises(ConfigurationError, match="AshNetsModel has no spiking branch: give a model that has one"):
        from_model(AshNetsModel(without))


def test_what_no_format_holds_is_refused_with_the_reason(encoder: AbstractEncoder) -> None:
    pooled = copy.deepcopy(encoder)
    pooled.layers["conv2"].add_module("pool", nn.AvgPool2d(2))
    with pytest.raises(ConfigurationError, match=r"conv2 consists of Conv2d, TdBN, LIF, AvgPool2d.*no pooling"):
        from_model(pooled)
    mirrored = copy.deepcopy(encoder)
    mirrored.layers["conv3"].conv.padding_mode = "reflect"
    with pytest.raises(ConfigurationError, match=r"conv3: .*'reflect'"):
        from_model(mirrored)


def test_damaged_statistics_are_refused(encoder: AbstractEncoder) -> None:
    broken = copy.deepcopy(encoder)
    broken.layers["conv2"].norm.running_var[0] = float("nan")
    with pytest.raises(ConfigurationError, match="not finite"):
        from_model(broken)


def test_bad_input_is_refused(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"\(T, B, 3, 40, 40\)"):
        graph.run(spikes[..., :-1])
    with pytest.raises(InputError, match="other than 0 and 1"):
        graph.run(spikes * 0.5)
    with pytest.raises(InputError, match="the state has shapes"):
        graph.run(spikes, graph.rest(1))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    assert write_atomically(target, b"one").read_bytes() == b"one"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "folder", b"two")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder", "new"]


@pytest.fixture(scope="module")
def integer_encoder(config: AshNetsConfig, encoder: AbstractEncoder) -> AbstractEncoder:
    """The encoder's weights and statistics, computed in integers."""
    encoder_in_integers = AbstractEncoder(AshNetsConfig(**{**config.to_dict(), "precision": "int8"})).eval()
    encoder_in_integers.load_state_dict(encoder.state_dict())
    return encoder_in_integers


@torch.no_grad()
def test_an_integer_graph_is_the_model_and_the_emulator_to_the_spike(
    integer_encoder: AbstractEncoder, spikes: torch.Tensor
) -> None:
    graph = from_model(integer_encoder, "small")
    assert (graph.precision, graph.provenance["quantization"]) == ("int8", "in training")
    outputs, state = graph.run(spikes)
    expected, membranes = integer_encoder.run(spikes)
    emulated, emulated_membranes = emulate(integer_layers(integer_encoder), spikes)
    for name in outputs:
        assert torch.equal(outputs[name], expected[name])
        assert torch.equal(outputs[name], torch.from_numpy(emulated[name]).float())
        assert 0.005 < outputs[name].mean() < 0.995
    assert all(map(torch.equal, state, membranes))
    assert all(torch.equal(a, torch.from_numpy(b).float()) for a, b in zip(state, emulated_membranes, strict=True))


def test_rounding_after_training_is_said_and_changes_spikes(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    rounded = quantized(graph)
    assert (graph.precision, rounded.precision) == ("float", "int8")
    assert rounded.provenance["quantization"] == "after training"
    layer = rounded.layers[0]
    assert layer.integer is not None
    assert torch.equal(layer.weight.double(), (layer.integer.weight.double() * layer.weight_step).float().double())
    assert (layer.weight - graph.layers[0].weight).abs().max() <= layer.weight_step
    differ = (rounded.run(spikes)[0]["concepts"] != graph.run(spikes)[0]["concepts"]).float().mean()
    assert 0 < differ < 0.5
    with pytest.raises(ConfigurationError, match="already"):
        quantized(rounded)


def test_a_decay_that_integers_lack_is_refused(graph: SpikingGraph) -> None:
    odd = dataclasses.replace(graph.layers[0], beta=0.3)
    with pytest.raises(ConfigurationError, match=r"conv1.*k/4096"):
        quantized(dataclasses.replace(graph, layers=(odd, *graph.layers[1:])))


def test_weights_that_integers_cannot_hold_are_refused_by_name(graph: SpikingGraph) -> None:
    far = dataclasses.replace(graph.layers[1], theta=1e9)
    with pytest.raises(ConfigurationError, match=r"layer conv2: .*threshold"):
        quantized(dataclasses.replace(graph, layers=(graph.layers[0], far, *graph.layers[2:])))


def test_a_cropped_graph_is_that_of_a_smaller_image(config: AshNetsConfig, encoder: AbstractEncoder) -> None:
    small = AbstractEncoder(AshNetsConfig(**{**config.to_dict(), "image_size": 24})).eval()
    small.load_state_dict(encoder.state_dict())
    crop, expected = cropped(from_model(encoder), 24, 24), from_model(small)
    assert [layer.output_shape for layer in crop.layers] == [layer.output_shape for layer in expected.layers]
    spikes = (torch.rand(4, 2, 3, 24, 24, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    assert torch.equal(crop.run(spikes)[0]["concepts"], expected.run(spikes)[0]["concepts"])
