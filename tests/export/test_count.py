"""Exact counts against a loop over every spike and tap, spikingjelly's counters, NeuroBench, and arithmetic by hand."""

from __future__ import annotations

import math

import pytest
import torch
from neurobench.metrics.utils.layers import single_layer_MACs
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn

from ashnets.configuration import AshNetsConfig
from ashnets.export.count import count, dense_macs
from ashnets.export.graph import InputEncoding, SpikingGraph, SpikingLayer, from_model
from ashnets.model import AshNetsModel
from ashnets.model.abstract_encoder import AbstractEncoder


def layer(name, inputs, outputs, side, kernel, stride=1, padding=0, dilation=1, groups=1) -> SpikingLayer:
    """A layer of random weights over squares of ``side``."""
    after = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    draw = torch.Generator().manual_seed(inputs * outputs + kernel)
    return SpikingLayer(
        name=name,
        weight=torch.randn(outputs, inputs // groups, kernel, kernel, generator=draw),
        bias=torch.full((outputs,), 0.2),
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(dilation, dilation),
        groups=groups,
        beta=0.5,
        theta=1.0,
        input_shape=(inputs, side, side),
        output_shape=(outputs, after, after),
        weight_step=2.0**-24,
    )


def network(*layers: SpikingLayer) -> SpikingGraph:
    return SpikingGraph("net", layers, time_steps=10, carry="image", group_size=1, encoding=InputEncoding())


def random_spikes(steps: int, pictures: int, shape: tuple[int, int, int], rate: float) -> torch.Tensor:
    return (torch.rand(steps, pictures, *shape, generator=torch.Generator().manual_seed(0)) < rate).float()


def operations_by_loop(one: SpikingLayer, spikes: torch.Tensor) -> int:
    """Every spike, every output channel, every tap."""
    outputs, per_group, height, width = one.weight.shape
    _, out_h, out_w = one.output_shape
    total = 0
    for _, _, channel, y, x in spikes.nonzero().tolist():
        for o in range(outputs):
            if o // (outputs // one.groups) != channel // per_group:
                continue
            for i in range(height):
                for j in range(width):
                    row, row_rest = divmod(y + one.padding[0] - i * one.dilation[0], one.stride[0])
                    column, column_rest = divmod(x + one.padding[1] - j * one.dilation[1], one.stride[1])
                    total += not row_rest and not column_rest and 0 <= row < out_h and 0 <= column < out_w
    return total


@pytest.mark.parametrize(
    "one",
    [
        layer("plain", 2, 3, 6, 3, padding=1),
        layer("strided", 2, 4, 7, 3, stride=2, padding=1),
        layer("strided-even", 2, 4, 8, 3, stride=2, padding=1),
        layer("unpadded, with a rest", 1, 2, 8, 3, stride=2),
        layer("dilated", 2, 2, 9, 3, stride=2, padding=2, dilation=2),
        layer("grouped", 4, 6, 5, 3, padding=1, groups=2),
        layer("point", 3, 5, 4, 1),
        layer("stride above kernel", 2, 2, 9, 2, stride=3),
        layer("wide padding", 1, 1, 4, 3, padding=3),
    ],
    ids=lambda one: one.name,
)
def test_operations_are_those_of_a_loop(one: SpikingLayer) -> None:
    spikes = random_spikes(2, 2, one.input_shape, 0.3)
    counts = count(network(one), spikes)
    assert counts.synaptic_operations == operations_by_loop(one, spikes) > 0
    # A dense pass without padding is a picture in which every input fires once.
    assert counts.dense_macs == operations_by_loop(one, torch.ones(1, 1, *one.input_shape))
    assert counts.dense_macs_padded == math.prod(one.output_shape) * math.prod(one.weight.shape[1:])


@pytest.fixture(scope="module")
def classifier() -> tuple[SpikingGraph, torch.Tensor]:
    """Conv 2→4 k3 p1, conv 4→8 k3 s2 p1, fully connected 512→10, as convolutions; T = 10, B = 2, binary input."""
    graph = network(
        layer("a", 2, 4, 16, 3, padding=1), layer("b", 4, 8, 16, 3, stride=2, padding=1), layer("c", 8, 10, 8, 8)
    )
    return graph, random_spikes(10, 2, (2, 16, 16), 0.3)


def test_the_classifier_equals_the_loop_and_other_tools(classifier: tuple[SpikingGraph, torch.Tensor]) -> None:
    graph, spikes = classifier
    counts = count(graph, spikes)
    fired = graph.run(spikes)[0]
    arriving = {"a": spikes, "b": fired["a"], "c": fired["b"]}
    for one, counted in zip(graph.layers, counts.layers, strict=True):
        inputs = arriving[one.name]
        assert counted.input_spikes == int(inputs.sum()) > 0
        assert counted.spikes == int(fired[one.name].sum())
        assert counted.synaptic_operations == operations_by_loop(one, inputs)

        conv = nn.Conv2d(one.input_shape[0], one.output_shape[0], one.weight.shape[2], one.stride, one.padding)
        theirs = SynOpCounter()
        with torch.no_grad(), DispatchCounterMode([theirs]):
            conv(inputs.flatten(0, 1))
        assert counted.synaptic_operations == theirs.get_total()
        operations, spiking = single_layer_MACs(inputs.flatten(0, 1), conv)
        assert spiking
        assert counted.synaptic_operations == operations
        dense, _ = single_layer_MACs(inputs[0, :1], conv, total=True)
        assert counted.dense_macs == dense


def test_the_usual_shortcut_is_not_exact(classifier: tuple[SpikingGraph, torch.Tensor]) -> None:
    """rate × dense MACs differs from the count at the layer with a stride: spikes are not spread as its taps are."""
    graph, spikes = classifier
    strided = count(graph, spikes).layers[1]
    rate = strided.input_spikes / (4 * 16 * 16 * 10 * 2)
    assert rate * strided.dense_macs_padded * 20 != pytest.approx(strided.synaptic_operations, rel=0.005)


def test_the_encoder_itself_under_spikingjellys_counter(dyadic_encoder: AbstractEncoder, spikes: torch.Tensor) -> None:
    theirs = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([theirs]):
        dyadic_encoder.run(spikes)
    assert count(from_model(dyadic_encoder), spikes).synaptic_operations == theirs.get_total() > 0


def test_totals_and_rates(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    counts = count(graph, spikes)
    neurons = 4 * 400 + 8 * 100 + 12 * 25 + 20 * 25
    assert (counts.pictures, counts.steps) == (4, 6)
    assert counts.membrane_updates == neurons * 6 * 4
    assert counts.spikes == sum(int(s.sum()) for s in graph.run(spikes)[0].values())
    for one in counts.layers:
        assert one.rate == one.spikes / (one.neurons * 24)
    # 1×1 convolution: each input meets each of the 20 outputs once, padding or not.
    assert counts.layers[-1].dense_macs == counts.layers[-1].dense_macs_padded == 12 * 20 * 25
    assert counts.to_dict()["layers"][0]["rate"] == counts.layers[0].rate
    assert counts.to_dict()["synaptic_operations"] == counts.synaptic_operations


def test_counting_a_stream_goes_on_from_its_state(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    whole = count(graph, spikes)
    _, state = graph.run(spikes[:2])
    parts = [count(graph, spikes[:2]), count(graph, spikes[2:], state)]
    assert whole.spikes == sum(part.spikes for part in parts)
    assert whole.synaptic_operations == sum(part.synaptic_operations for part in parts)


def test_macs_of_the_artificial_parts_by_hand(config: AshNetsConfig) -> None:
    model = AshNetsModel(config)
    pictures = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(0))

    found = dense_macs(model, pictures, tokens)
    hidden, inner, visual = 24, 48, 25
    sequence = visual + 7
    stem = 8 * 3 * 49 * 20 * 20  # 7×7, stride 2; pooling follows
    first = 4 * 8 * 8 * 9 * 10 * 10
    second = (12 * 8 * 9 + 3 * 12 * 12 * 9 + 12 * 8) * 5 * 5  # and the 1×1 shortcut
    assert found["concrete_encoder"] == stem + first + second + hidden * 12 * visual
    assert found["collector"] == visual * 20 * hidden
    assert found["summary_ratio"] == visual * hidden
    assert found["transformer"] == 2 * (
        sequence * (4 * hidden * hidden + 2 * hidden * inner) + 2 * sequence * sequence * hidden
    )
    assert set(found) == {"concrete_encoder", "collector", "summary_ratio", "transformer"}
    alone = dense_macs(model, pictures)
    assert alone["transformer"] == 2 * (
        visual * (4 * hidden * hidden + 2 * hidden * inner) + 2 * visual * visual * hidden
    )
    # Padding in the text takes another path through attention, of the same size.
    mask = torch.ones_like(tokens)
    mask[0, 4:] = 0
    assert dense_macs(model, pictures, tokens, attention_mask=mask) == found
