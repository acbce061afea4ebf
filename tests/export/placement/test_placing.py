"""Placement against a loop over every synapse, over random layer shapes and mappings."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ashnets.errors import ConfigurationError
from ashnets.export.graph import GraphLayer, InputEncoding, SpikingGraph
from ashnets.export.placement.arranging import exchanged
from ashnets.export.placement.chips import Chip, load_chip
from ashnets.export.placement.latency import Clock
from ashnets.export.placement.mapping import MAPPINGS
from ashnets.export.placement.placed import Placement
from ashnets.export.placement.placing import place, place_on_any
from ashnets.export.placement.traffic import Traffic, traffic_tables


def chip_of(**changes: Any) -> Chip:
    """A small chip without limits but neurons: 3 × 2 tiles of 2 cores."""
    small = {"columns": 3, "rows": 2, "cores_per_tile": 2, "neurons": 16}
    free = {"synapse_bits": None, "axons_in": None, "axons_out": None}
    return replace(load_chip("loihi1"), **{**small, **free, **changes})


def graph_of(shape: tuple[int, int, int], *specs: tuple[int, int, int, int, int, int]) -> SpikingGraph:
    """Layers of (outputs, kernel, stride, padding, dilation, groups) with small random weights."""
    layers: list[GraphLayer] = []
    generator = torch.Generator().manual_seed(0)
    for i, (outputs, kernel, stride, padding, dilation, groups) in enumerate(specs):
        weight = torch.randn(outputs, shape[0] // groups, kernel, kernel, generator=generator)
        out = F.conv2d(torch.zeros(1, *shape), weight, None, stride, padding, dilation, groups).shape[1:]
        layers.append(
            GraphLayer(
                f"layer{i}", weight, torch.full((outputs,), 0.2), (stride,) * 2, (padding,) * 2, (dilation,) * 2,
                groups, 0.5, 1.0, shape, tuple(out), 1.0,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        shape = tuple(out)  # type: ignore[assignment]
    return SpikingGraph("small", tuple(layers), 3, "image", 1, InputEncoding())


def synapses(layer: GraphLayer) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """(source, target) of every synapse, by the definition of a convolution."""
    (inputs, height, width), (outputs, h, w) = layer.input_shape, layer.output_shape
    per_group_in, per_group_out = inputs // layer.groups, outputs // layer.groups
    found = []
    for o, y, x in itertools.product(range(outputs), range(h), range(w)):
        for i, ky, kx in itertools.product(
            range(per_group_in), range(layer.weight.shape[2]), range(layer.weight.shape[3])
        ):
            row = y * layer.stride[0] - layer.padding[0] + ky * layer.dilation[0]
            column = x * layer.stride[1] - layer.padding[1] + kx * layer.dilation[1]
            if 0 <= row < height and 0 <= column < width:
                found.append(((o // per_group_out * per_group_in + i, row, column), (o, y, x)))
    return found


def by_loop(placement: Placement, graph: SpikingGraph, spikes: list[np.ndarray]) -> tuple[list[Traffic], dict]:
    """Traffic of each layer, and what each core receives, by a loop over synapses and spikes."""
    chip, found, cores = placement.chip, [], {}
    for layer, source, target, fired in zip(
        graph.layers, placement.populations, placement.populations[1:], spikes, strict=False
    ):
        reached: dict[tuple[int, int, int], dict[int, int]] = {}
        for pre, post in synapses(layer):
            core = int(target.slots[target.cores[post]])
            counts = reached.setdefault(pre, {})
            counts[core] = counts.get(core, 0) + 1
        messages = east_west = north_south = 0
        for pre, counts in reached.items():
            tile = int(source.slots[source.cores[pre]]) // chip.cores_per_tile
            for core, number in counts.items():
                other = core // chip.cores_per_tile
                messages += int(fired[pre])
                east_west += int(fired[pre]) * abs(tile // chip.rows - other // chip.rows)
                north_south += int(fired[pre]) * abs(tile % chip.rows - other % chip.rows)
                received = cores.setdefault((layer.name, core), [0, 0, 0])
                received[0] += int(fired[pre])
                received[1] += int(fired[pre]) * number
                received[2] += 1
        found.append(Traffic(messages, east_west, north_south))
    return found, cores


def traffic_of(placement: Placement, spikes: list[np.ndarray]) -> list[Traffic]:
    tables = traffic_tables(placement)
    sums = [torch.from_numpy(s).double().flatten() @ table for s, table in zip(spikes, tables, strict=True)]
    return [Traffic(*map(int, one.tolist())) for one in sums]


def random_spikes(graph: SpikingGraph, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 4, layer.input_shape) for layer in graph.layers]


layer_specs = st.builds(
    lambda per_group, kernel, stride, padding, dilation, groups: (
        per_group * groups, kernel, stride, padding, dilation, groups,
    ),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2),
    st.sampled_from([1, 2]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.just(2), st.integers(5, 8), st.integers(5, 8)),
    layer_specs,
    layer_specs,
    st.sampled_from(["spatial", "linear", "best"]),
    st.integers(2, 40),
    st.booleans(),
    st.integers(0, 99),
)
def test_traffic_is_that_of_a_loop_over_synapses(
    shape: tuple[int, int, int], first: tuple, second: tuple, mapping: str, neurons: int, shared: bool, seed: int
) -> None:
    try:
        graph = graph_of(shape, first, second)
    except RuntimeError:  # a kernel larger than its input, or groups that do not divide the channels
        return
    spikes = random_spikes(graph, seed)
    placement = place_on_any(graph, chip_of(neurons=neurons, shared_weights=shared), mapping, spikes)
    expected, cores = by_loop(placement, graph, spikes)
    assert traffic_of(placement, spikes) == expected
    used = np.concatenate([one.slots for one in placement.populations])
    assert len(set(used.tolist())) == len(used) == placement.cores, "no two of them share a core"
    for layer, one, reached in zip(graph.layers, placement.populations[1:], placement.reaches, strict=True):
        assert one.cores.shape == layer.output_shape
        assert one.neurons.min() >= 1
        assert one.neurons.max() <= neurons
        axons = [cores[layer.name, slot][2] if (layer.name, slot) in cores else 0 for slot in one.slots.tolist()]
        assert reached.axons_in.tolist() == axons
        assert one.held is not None
        fan_in = np.zeros(layer.output_shape, int)
        for _, post in synapses(layer):
            fan_in[post] += 1
        bits = np.bincount(one.cores.ravel(), fan_in.ravel()) * placement.chip.weight_bits
        assert one.held.bits.tolist() == bits.tolist()
        for core in range(len(one.slots)):
            channels = len(np.unique(np.nonzero(one.cores == core)[0]))
            assert one.held.shared_bits[core] == channels * layer.weight[0].numel() * placement.chip.weight_bits


def test_a_long_table_takes_memory_by_its_entries() -> None:
    """The linear mapping of a large encoder: on thousands of columns of tiles, one of each place would be gigabytes."""
    layer_shapes = ((24, 3, 2, 1, 1, 1), (48, 3, 2, 1, 1, 1), (64, 3, 2, 1, 1, 1))
    graph = graph_of((3, 128, 128), *layer_shapes)
    tracemalloc.start()
    placement = place_on_any(graph, load_chip("loihi1"), "linear")
    tables = traffic_tables(placement)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    entries = sum(r.core.size for r in placement.reaches)
    assert placement.chip.columns > 300
    assert peak < 200 * (entries + sum(map(len, tables)))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_latency_is_that_of_a_loop_over_cores(mapping: str) -> None:
    graph = graph_of((2, 6, 6), (4, 3, 1, 1, 1, 1), (6, 3, 2, 1, 1, 2))
    placement = place(graph, chip_of(columns=4, rows=4, neurons=24), mapping)
    spikes = (torch.rand(3, 2, 2, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    outputs, _ = graph.run(spikes)
    clock = Clock(placement)
    clock.add(spikes[:, :1], {name: x[:, :1] for name, x in outputs.items()})
    clock.add(spikes[:, 1:], {name: x[:, 1:] for name, x in outputs.items()})
    found = clock.result()
    ns = {key: one.nanoseconds for key, one in placement.chip.latency.items()}
    fired = [spikes, *outputs.values()]
    expected = np.zeros((5, 2))
    for image, step in itertools.product(range(2), range(5)):
        busy: dict[Any, float] = {}
        now = [x[step - i, image].numpy() if 0 <= step - i < 3 else np.zeros(x.shape[2:]) for i, x in enumerate(fired)]
        _, received = by_loop(placement, graph, now)
        for (_, core), (messages, operations, _) in received.items():
            busy["receiving", core] = messages * ns["message_in"] + operations * ns["synapse"]
        for i, one in enumerate(placement.populations):
            reached = {}
            for pre, post in synapses(graph.layers[i]) if i < 2 else ():
                reached.setdefault(pre, set()).add(int(placement.populations[i + 1].on_chip[post]))
            for n in np.ndindex(one.cores.shape):
                key = "sending", int(one.on_chip[n])
                if i:
                    busy[key] = busy.get(key, 0) + ns["neuron"] + now[i][n] * ns["spike"]
                busy[key] = busy.get(key, 0) + now[i][n] * len(reached.get(n, ())) * ns["message_out"]
        expected[step, image] = max(busy.values())
    tiles = len({slot // 2 for one in placement.populations for slot in one.slots.tolist()})
    barrier = {1: 600, 2: 1000, 3: 1000}.get(tiles, 1400)
    expected += barrier
    assert found.images == 2 and found.steps == 5
    assert found.by_step == pytest.approx(expected.mean(1).tolist())
    assert found.image == pytest.approx(expected.sum(0).mean())
    assert found.longest_image == pytest.approx(expected.sum(0).max())
    assert (found.step, found.longest_step) == (pytest.approx(expected.mean()), pytest.approx(expected.max()))


def test_exchanges_save_what_they_say() -> None:
    generator = np.random.default_rng(0)
    flow = generator.integers(0, 5, (12, 12)).astype(float)
    flow = np.triu(flow, 1) + np.triu(flow, 1).T
    places = generator.random((12, 2))
    distance = np.abs(places[:, None] - places).sum(2)

    def cost(slots: np.ndarray) -> float:
        return float((flow * distance[slots][:, slots]).sum())

    start = np.arange(12)
    found = exchanged(flow, distance, start)
    assert sorted(found.tolist()) == start.tolist()
    assert cost(found) < cost(start)
    for a, b in itertools.combinations(range(12), 2):  # no exchange of two improves it
        other = found.copy()
        other[[a, b]] = other[[b, a]]
        assert cost(other) >= cost(found) - 1e-9


def test_the_best_mapping_costs_least(graph: SpikingGraph, spikes: torch.Tensor) -> None:
    outputs, _ = graph.run(spikes)
    fired = [x.sum((0, 1)).numpy() for x in (spikes, *list(outputs.values())[:-1])]
    chip = chip_of(columns=6, rows=4, cores_per_tile=4, neurons=256)
    energy = {}
    for mapping in MAPPINGS:
        found = place(graph, chip, mapping, fired)
        energy[mapping] = sum(one.picojoules(chip) for one in traffic_of(found, fired))
        again = place(graph, chip, mapping, fired)
        assert all(np.array_equal(a.slots, b.slots) for a, b in zip(found.populations, again.populations, strict=True))
    assert energy["best"] < energy["spatial"] < energy["linear"]


def test_limits_of_a_core_hold_or_are_refused(graph: SpikingGraph) -> None:
    roomy = chip_of(columns=20, rows=20, neurons=256)
    kernel = max(layer.weight[0].numel() for layer in graph.layers)
    for limit, value in (("axons_in", 300), ("axons_out", 300), ("synapse_bits", 8 * kernel * 5)):
        for mapping in MAPPINGS:
            for shared in (True, False):
                chip = replace(roomy, **{limit: value}, shared_weights=shared)
                found = place(graph, chip, mapping)
                if limit == "axons_out":
                    assert all(int(sent.max()) <= value for sent in found.axons_out[1:])
                for one in found.populations[1:]:
                    assert one.held is not None
                    bits = one.held.shared_bits if shared else one.held.bits
                    held = {"axons_in": one.held.axons_in, "synapse_bits": bits}.get(limit, np.zeros(1))
                    assert int(held.max()) <= value
    with pytest.raises(
        ConfigurationError, match=r"small needs \d+ cores .* which has 12 \(mapping best\): input \d+, "
    ):
        place(graph, chip_of(), "best")
    with pytest.raises(ConfigurationError, match=r"--mapping best needs \d+ and fits"):
        tight = replace(roomy, columns=8, rows=4, axons_out=300)
        place(graph, tight, "linear")
    with pytest.raises(ConfigurationError, match="concepts: one neuron needs 12 weights of 8 bits and 12 axons"):
        place(graph, replace(roomy, synapse_bits=16), "spatial")
    with pytest.raises(ConfigurationError, match="mapping='random' must be one of best, spatial, linear"):
        place(graph, roomy, "random")
