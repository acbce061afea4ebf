"""Exact counts against a loop over spikes and taps, spikingjelly's counters, NeuroBench, syops, and counts by hand."""

from __future__ import annotations

import math

import pytest
import torch
from neurobench.metrics.utils.layers import single_layer_MACs
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn

from ashnets.configuration import AshNetsConfig
from ashnets.errors import InputError
from ashnets.export.counting import Counter, count
from ashnets.export.energy.rates import firing_rates
from ashnets.export.graph import GraphLayer, InputEncoding, SpikingGraph, from_model
from ashnets.model import AshNetsModel
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.zoo.macs import dense_layers, dense_macs


def layer(name, inputs, outputs, side, kernel, stride=1, padding=0, dilation=1, groups=1) -> GraphLayer:
    """A layer of random weights over squares of ``side``."""
    after = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    draw = torch.Generator().manual_seed(inputs * outputs + kernel)
    return GraphLayer(
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


def network(*layers: GraphLayer) -> SpikingGraph:
    return SpikingGraph("net", layers, time_steps=10, carry="image", group_size=1, encoding=InputEncoding())


def random_spikes(steps: int, images: int, shape: tuple[int, int, int], rate: float) -> torch.Tensor:
    return (torch.rand(steps, images, *shape, generator=torch.Generator().manual_seed(0)) < rate).float()


def operations_by_loop(one: GraphLayer, spikes: torch.Tensor) -> int:
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
def test_operations_are_those_of_a_loop(one: GraphLayer) -> None:
    spikes = random_spikes(2, 2, one.input_shape, 0.3)
    counts = count(network(one), spikes)
    assert counts.synaptic_operations == operations_by_loop(one, spikes) > 0
    # A dense pass without padding is an image in which every input fires once.
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


def test_syops_counts_rate_times_dense_with_bias_and_padding(
    classifier: tuple[SpikingGraph, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """syops spreads the spikes evenly, over taps on padding too, and counts a bias as one more synapse."""
    for name in ("IFNode", "LIFNode", "ParametricLIFNode"):  # it was written for two classes that are one by now
        monkeypatch.setattr(neuron, f"MultiStep{name}", getattr(neuron, name), raising=False)
    from syops import get_model_complexity_info

    graph, spikes = classifier
    fired = graph.run(spikes)[0]
    arriving = {"a": spikes, "b": fired["a"], "c": fired["b"]}
    theirs = 0.0
    for one, counted in zip(graph.layers, count(graph, spikes).layers, strict=True):
        inputs = arriving[one.name].flatten(0, 1)
        conv = nn.Conv2d(one.input_shape[0], one.output_shape[0], one.weight.shape[2], one.stride, one.padding)
        (_, operations, macs, _), _ = get_model_complexity_info(
            nn.Sequential(conv),
            tuple(inputs.shape),
            input_constructor=lambda _, inputs=inputs: {"input": inputs},
            as_strings=False,
            print_per_layer_stat=False,
        )
        rate = counted.input_spikes / inputs.numel()
        assert macs == 0, "it takes the input for spikes"
        assert operations == pytest.approx(rate * (counted.dense_macs_padded + one.neurons) * len(inputs), rel=1e-6)
        theirs += operations
    ours = count(graph, spikes).synaptic_operations
    assert 1.02 * ours < theirs < 1.2 * ours


def test_the_encoder_itself_under_spikingjellys_counter(dyadic_encoder: AbstractEncoder, spikes: torch.Tensor) -> None:
    theirs = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([theirs]):
        dyadic_encoder.run(spikes)
    assert count(from_model(dyadic_encoder), spikes).synaptic_operations == theirs.get_total() > 0


def test_totals_and_rates(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    counts = count(graph, spikes)
    neurons = 4 * 400 + 8 * 100 + 12 * 25 + 20 * 25
    assert (counts.images, counts.steps) == (4, 6)
    assert counts.membrane_updates == neurons * 6 * 4
    assert counts.spikes == sum(int(s.sum()) for s in graph.run(spikes)[0].values())
    for one in counts.layers:
        assert one.rate == one.spikes / (one.neurons * 24)
    # 1×1 convolution: each input meets each of the 20 outputs once, padding or not.
    assert counts.layers[-1].dense_macs == counts.layers[-1].dense_macs_padded == 12 * 20 * 25
    assert counts.to_dict()["layers"][0]["rate"] == counts.layers[0].rate
    assert counts.to_dict()["synaptic_operations"] == counts.synaptic_operations


def test_three_spikes_by_hand() -> None:
    """3×3, padding 1, four outputs: a spike reaches 4 places from a corner, 6 from an edge, 9 from inside."""
    one = layer("a", 2, 4, 16, 3, padding=1)
    spikes = torch.zeros(2, 1, 2, 16, 16)
    spikes[0, 0, 0, 0, 0] = spikes[0, 0, 1, 0, 7] = spikes[1, 0, 1, 8, 8] = 1
    counts = count(network(one), spikes)
    assert counts.synaptic_operations == 4 * (4 + 6 + 9)
    assert counts.layers[0].by_step is not None
    assert counts.layers[0].by_step.synaptic_operations == (4 * (4 + 6), 4 * 9)
    assert (counts.input_spikes, counts.layers[0].by_step.input_spikes) == (3, (2, 1))
    assert counts.dense_macs == 2 * 4 * (4 * 4 + 4 * 14 * 6 + 14 * 14 * 9)
    assert counts.operations_per_mac == counts.synaptic_operations / counts.dense_macs
    assert counts.input_rate == 3 / (2 * 16 * 16 * 2)


@pytest.fixture(scope="module")
def pair() -> tuple[SpikingGraph, torch.Tensor]:
    graph = network(layer("a", 2, 3, 6, 3, padding=1), layer("b", 3, 2, 6, 3, stride=2, padding=1))
    return graph, random_spikes(4, 6, (2, 6, 6), 0.3)


def test_groups_carry_their_membranes_as_a_loop_over_images_does(pair: tuple[SpikingGraph, torch.Tensor]) -> None:
    graph, spikes = pair
    fired, operations = 0, 0
    for group in range(2):
        state = None
        for i in range(3 * group, 3 * group + 3):
            outputs, state = graph.run(spikes[:, i : i + 1], state)
            fired += sum(int(out.sum()) for out in outputs.values())
            operations += operations_by_loop(graph.layers[0], spikes[:, i : i + 1])
            operations += operations_by_loop(graph.layers[1], outputs["a"])
    carried = count(graph, spikes, group_size=3, carry="group")
    assert (carried.images, carried.steps, carried.group_size) == (6, 4, 3)
    assert (carried.spikes, carried.synaptic_operations) == (fired, operations)

    reset = count(graph, spikes, group_size=3, carry="image")
    assert reset == count(graph, spikes)
    assert reset.spikes != carried.spikes, "the membranes make no difference: the test sees nothing"
    assert reset.membrane_updates == carried.membrane_updates == (3 * 36 + 2 * 9) * 4 * 6
    with pytest.raises(InputError, match="groups"):
        carried.first(2)
    with pytest.raises(InputError, match="φ = 4"):
        count(graph, spikes, group_size=4, carry="group")


def test_batches_add_up(pair: tuple[SpikingGraph, torch.Tensor]) -> None:
    graph, spikes = pair
    counter = Counter(graph)
    with pytest.raises(InputError, match="nothing"):
        counter.counts()
    counter.add(spikes[:, :4])
    counter.add(spikes[:, 4:])
    assert counter.counts() == count(graph, spikes)
    with pytest.raises(InputError, match="new counter"):
        counter.add(spikes[:2])


def test_the_first_steps_are_those_of_a_shorter_run(pair: tuple[SpikingGraph, torch.Tensor]) -> None:
    graph, spikes = pair
    whole = count(graph, spikes)
    for steps in (1, 3, 4):
        first, shorter = whole.first(steps), count(graph, spikes[:steps])
        assert (first.steps, first.synaptic_operations, first.spikes) == (
            steps,
            shorter.synaptic_operations,
            shorter.spikes,
        )
        assert (first.input_spikes, first.membrane_updates) == (shorter.input_spikes, shorter.membrane_updates)
    early, late = Counter(graph), Counter(graph)
    late.add(spikes[3:], early.add(spikes[:3]))
    both = early.counts().then(late.counts())
    assert [both.first(t).synaptic_operations for t in (2, 4)] == [whole.first(t).synaptic_operations for t in (2, 4)]
    with pytest.raises(InputError, match="5 steps"):
        whole.first(5)


def test_rates_of_the_neurons_by_a_loop(pair: tuple[SpikingGraph, torch.Tensor]) -> None:
    graph, spikes = pair
    outputs, _ = graph.run(spikes)
    for one in count(graph, spikes).layers:
        out = outputs[one.name]
        each = sorted(
            float(out[:, :, c, y, x].sum()) / 24
            for c in range(out.shape[2])
            for y in range(out.shape[3])
            for x in range(out.shape[4])
        )
        assert one.rates is not None
        assert one.rates.mean == pytest.approx(sum(each) / len(each)) == one.rate
        assert one.rates.p95 == next(rate for rate in each if sum(other <= rate for other in each) >= 0.95 * len(each))
        assert one.rates.silent == sum(rate == 0 for rate in each) / len(each)
        assert one.rates.saturated == sum(rate > 0.9 for rate in each) / len(each)


def test_silent_and_saturated_neurons() -> None:
    """Twenty neurons: four never fire, fifteen fire at every second step, one at every step."""
    found = firing_rates(torch.tensor([0] * 4 + [5] * 15 + [10]), steps=10)
    assert (found.silent, found.saturated, found.p95) == (0.2, 0.05, 0.5)
    assert found.mean == pytest.approx((15 * 0.5 + 1) / 20)


def test_bytes_by_hand(pair: tuple[SpikingGraph, torch.Tensor]) -> None:
    graph, spikes = pair
    counts = count(graph, spikes)
    assert counts.weights == 3 * 2 * 9 + 3 + 2 * 3 * 9 + 2 == 113
    assert counts.neurons == 3 * 36 + 2 * 9 == 126
    fired = int(spikes.sum()) + counts.spikes
    assert counts.bytes() == {
        "weights": 452,
        "state": 504,
        "spikes_as_bitmap": (9 + 14 + 3) * 4,
        "spikes_as_events": round(4 * fired / 6),
    }
    assert counts.bytes(weight_bits=8, state_bits=24)["weights"] == 113
    assert counts.bytes(weight_bits=8, state_bits=24)["state"] == 378


def test_counting_a_stream_goes_on_from_its_state(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    whole = count(graph, spikes)
    _, state = graph.run(spikes[:2])
    parts = [count(graph, spikes[:2]), count(graph, spikes[2:], state)]
    assert whole.spikes == sum(part.spikes for part in parts)
    assert whole.synaptic_operations == sum(part.synaptic_operations for part in parts)


def test_macs_of_the_artificial_parts_by_hand(config: AshNetsConfig) -> None:
    model = AshNetsModel(config)
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(0))

    found = dense_macs(model, images, tokens)
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
    alone = dense_macs(model, images)
    assert alone["transformer"] == 2 * (
        visual * (4 * hidden * hidden + 2 * hidden * inner) + 2 * visual * visual * hidden
    )
    layers = dense_layers(model, images, tokens)
    assert {part: sum(one.macs for one in parts) for part, parts in layers.items()} == found
    (collector,) = layers["collector"]
    assert (collector.weights, collector.inputs, collector.outputs) == (20 * hidden, visual * 20, visual * hidden)
    stem_layer = next(one for one in layers["concrete_encoder"] if one.inputs == 3 * 40 * 40)
    assert (stem_layer.macs, stem_layer.weights, stem_layer.outputs) == (stem, 8 * 3 * 49, 8 * 20 * 20)
    attention = layers["transformer"][-1]
    assert (attention.name, attention.weights) == ("attention", 0)
    assert attention.macs == 2 * 2 * sequence * sequence * hidden
    # Padding in the text takes another path through attention, of the same size.
    mask = torch.ones_like(tokens)
    mask[0, 4:] = 0
    assert dense_macs(model, images, tokens, attention_mask=mask) == found
