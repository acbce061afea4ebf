"""The ONNX step graph against torch, its metadata, and files that must be refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ashnets.errors import InputError, WeightsError
from ashnets.export.emulator import IntegerLayer, emulate
from ashnets.export.graph import SpikingGraph, quantized
from ashnets.export.onnx.running import compare_with_reference, run_onnx
from ashnets.export.onnx.sequence import write_onnx_sequence
from ashnets.export.onnx.step import write_onnx_step
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.integer import IntegerConstants


@pytest.fixture(scope="module")
def exported(graph: SpikingGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx_step(graph, tmp_path_factory.mktemp("onnx") / "step.onnx", layer_spikes=True)


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_every_spike_and_membrane_is_that_of_the_graph(
    precision: str, exported: Path, graph: SpikingGraph, spikes: torch.Tensor, tmp_path: Path
) -> None:
    if precision == "int8":
        graph = quantized(graph)
        exported = write_onnx_step(graph, tmp_path / "integer.onnx", layer_spikes=True)
    outputs, state = run_onnx(exported, spikes)
    expected, membranes = graph.run(spikes)
    assert list(outputs) == list(expected)
    for name in expected:
        assert torch.equal(outputs[name], expected[name])
    assert all(map(torch.equal, state, membranes))


@pytest.mark.parametrize("decay", [0, 1, 1024, 1400, 2048, 4095, 4096])
def test_integer_neurons_at_their_limits_are_the_chips(decay: int, graph: SpikingGraph, tmp_path: Path) -> None:
    """One neuron a channel under the largest currents and biases, from membranes at both ends of their 24 bits."""
    held = IntegerConstants(
        weight=torch.tensor([254, -256, 2, 130_000, -130_000, 2], dtype=torch.int32).view(-1, 1, 1, 1),
        bias=torch.tensor([4096, -4096, 0, 4096, -4096, -1], dtype=torch.int32),
        threshold=(1 << 17) - 1,
        decay=decay,
        step=0.01,
    )
    layer = dataclasses.replace(
        graph.layers[-1],
        integer=held,
        weight=held.weight.float(),
        bias=held.bias.float(),
        input_shape=(1, 1, 8),
        output_shape=(6, 1, 8),
        stride=(1, 1),
        padding=(0, 0),
    )
    one = dataclasses.replace(graph, layers=(layer,))
    ends = torch.tensor([0, 1, -1, 4097, -4099, 8_388_606, 8_388_607, -8_388_607])
    state = ends.expand(6, 1, 8).unsqueeze(0).contiguous()
    spikes = torch.ones(4, 1, 1, 1, 8)
    spikes[1:3, ..., ::2] = 0
    expected, (last,) = emulate([IntegerLayer(layer.name, held, (1, 1), (0, 0))], spikes, [state.numpy()])
    path = tmp_path / "one.onnx"
    for write, options in ((write_onnx_step, {}), (write_onnx_sequence, {}), (write_onnx_sequence, {"unrolled": 4})):
        found, (v,) = run_onnx(write(one, path, **options), spikes, (state.float(),))
        assert np.array_equal(found["concepts"].numpy(), expected["concepts"])
        assert np.array_equal(v.numpy(), last)
    assert 0 < expected["concepts"].mean() < 1


@pytest.mark.parametrize("optimized", [False, True])
def test_a_plain_loop_over_the_file_is_enough(
    exported: Path, graph: SpikingGraph, spikes: torch.Tensor, optimized: bool
) -> None:
    """What another tool does: names and shapes from the file, state from output to input; batch 1."""
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    feeds = {i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in session.get_inputs()}
    expected, _ = graph.run(spikes[:, 1:2])
    for t in range(len(spikes)):
        feeds["spikes"] = spikes[t, 1:2].numpy()
        out = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
        assert np.array_equal(out["concepts"], expected["concepts"][t].numpy())
        assert np.array_equal(out["spikes_conv2"], expected["conv2"][t].numpy())
        feeds = {name: out.get(f"{name}_next") for name in feeds}


def test_a_stream_is_one_sequence(exported: Path, spikes: torch.Tensor) -> None:
    whole, end = run_onnx(exported, spikes)
    first, state = run_onnx(exported, spikes[:4])
    second, last = run_onnx(exported, spikes[4:], state)
    assert torch.equal(torch.cat([first["concepts"], second["concepts"]]), whole["concepts"])
    assert all(map(torch.equal, last, end))


def test_compare_counts_against_both_references(
    exported: Path, graph: SpikingGraph, encoder: AbstractEncoder, spikes: torch.Tensor
) -> None:
    result = compare_with_reference(exported, graph, encoder, spikes)
    assert (result.images, result.steps) == (4, 6)
    assert [layer.compared for layer in result.layers] == [6 * 4 * layer.neurons for layer in graph.layers]
    assert result.differ_from_graph == 0
    assert result.differ_from_model < result.compared / 1000
    # It can see a difference: the first layer of another graph fires elsewhere.
    first = graph.layers[0]
    other = dataclasses.replace(graph, layers=(dataclasses.replace(first, theta=first.theta * 1.2), *graph.layers[1:]))
    result = compare_with_reference(exported, other, encoder, spikes)
    fired, expected = graph.run(spikes)[0]["conv1"], other.run(spikes)[0]["conv1"]
    assert result.layers[0].differ_from_graph == int((fired != expected).sum()) > 0


def test_the_file_says_what_it_is(exported: Path, graph: SpikingGraph) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [(s.domain, s.version) for s in model.opset_import] == [("", 20)]
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["time_steps"] == "6"
    assert properties["opset"] == "20"
    assert json.loads(properties["beta"])["conv1"] == graph.layers[0].beta
    assert json.loads(properties["theta"])["concepts"] == graph.layers[-1].theta
    assert json.loads(properties["input_encoding"]) == {"kind": "bernoulli", "seed": 3, "normalized": False}
    assert properties["provenance.model"] == "small"
    shapes = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert shapes["spikes"] == ["B", 3, 40, 40]
    assert shapes["v_conv3"] == ["B", 12, 5, 5]


def test_inner_spikes_are_given_on_request_only(
    graph: SpikingGraph, encoder: AbstractEncoder, spikes: torch.Tensor, tmp_path: Path
) -> None:
    path = write_onnx_step(graph, tmp_path / "plain.onnx")
    assert list(run_onnx(path, spikes)[0]) == ["concepts"]
    with pytest.raises(InputError, match="layer_spikes=True"):
        compare_with_reference(path, graph, encoder, spikes)


def test_spikes_of_each_layer_are_counted_on_request(graph: SpikingGraph, spikes: torch.Tensor, tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(write_onnx_step(graph, tmp_path / "counts.onnx", layer_counts=True))
    names = [o.name for o in session.get_outputs()]
    feeds = {f"v_{layer.name}": v.numpy() for layer, v in zip(graph.layers, graph.rest(4), strict=True)}
    out = dict(zip(names, session.run(names, {"spikes": spikes[0].numpy(), **feeds}), strict=True))
    expected, _ = graph.run(spikes[:1])
    for name, fired in expected.items():
        assert out[f"count_{name}"].tolist() == fired[0].sum((1, 2, 3)).int().tolist()
        assert out[f"count_{name}"].dtype == np.int64


def test_weights_above_a_limit_stand_beside_the_graph(
    graph: SpikingGraph, spikes: torch.Tensor, tmp_path: Path
) -> None:
    path = write_onnx_step(graph, tmp_path / "big.onnx", external_above=1000)
    data = tmp_path / "big.onnx.data"
    assert {p.name for p in tmp_path.iterdir()} == {"big.onnx", "big.onnx.data"}
    onnx.checker.check_model(str(path), full_check=True)
    assert torch.equal(run_onnx(path, spikes)[0]["concepts"], graph.run(spikes)[0]["concepts"])
    whole = data.read_bytes()
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(WeightsError, match="sha256"):
        run_onnx(path, spikes)
    data.write_bytes(whole[:-4])
    with pytest.raises(WeightsError, match=r"big\.onnx"):
        run_onnx(path, spikes)
    data.unlink()
    with pytest.raises(WeightsError, match=r"big\.onnx\.data"):
        run_onnx(path, spikes)
    write_onnx_step(graph, path)
    assert [p.name for p in tmp_path.iterdir()] == ["big.onnx"]


def test_the_same_graph_gives_the_same_bytes(exported: Path, graph: SpikingGraph, tmp_path: Path) -> None:
    assert write_onnx_step(graph, tmp_path / "again.onnx", layer_spikes=True).read_bytes() == exported.read_bytes()


def test_a_truncated_file_is_refused(exported: Path, spikes: torch.Tensor, tmp_path: Path) -> None:
    data = exported.read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in [*range(0, len(data), len(data) // 40), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="export it again"):
            run_onnx(cut, spikes)


def test_a_changed_file_is_refused(exported: Path, spikes: torch.Tensor, tmp_path: Path) -> None:
    model = onnx.load(exported)
    weight = next(i for i in model.graph.initializer if i.name == "conv2.weight")
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    changed = tmp_path / "changed.onnx"
    onnx.save(model, changed)
    with pytest.raises(WeightsError, match="sha256"):
        run_onnx(changed, spikes)


def test_a_flipped_bit_is_refused(exported: Path, spikes: torch.Tensor, tmp_path: Path) -> None:
    """Wherever it is, in a weight, a name, a node or the metadata."""
    data, edited, draw = exported.read_bytes(), tmp_path / "edited.onnx", np.random.default_rng(0)
    model = onnx.load(exported)
    labels = [data.index(entry.value.encode()) for entry in model.metadata_props]
    for place in [*draw.integers(len(data), size=150), *labels]:
        edited.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(draw.integers(8)))]) + data[place + 1 :])
        with pytest.raises(WeightsError, match="export it again"):
            run_onnx(edited, spikes)


def test_another_format_version_is_refused(exported: Path, spikes: torch.Tensor, tmp_path: Path) -> None:
    model = onnx.load(exported)
    next(p for p in model.metadata_props if p.key == "format").value = "ashnets-onnx-step/99"
    onnx.save(model, tmp_path / "later.onnx")
    with pytest.raises(WeightsError, match=r"'ashnets-onnx-step/99'.*export it again"):
        run_onnx(tmp_path / "later.onnx", spikes)


def test_what_is_no_step_graph_is_refused(spikes: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.onnx cannot be read"):
        run_onnx(tmp_path / "absent.onnx", spikes)
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(WeightsError, match="parse"):
        run_onnx(tmp_path / "text.onnx", spikes)
    helper = onnx.helper
    put = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("x", "y")]
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "other", put[:1], put[1:])
    onnx.save(helper.make_model(body), tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match="format is None"):
        run_onnx(tmp_path / "other.onnx", spikes)


def test_input_that_does_not_fit_is_refused(exported: Path, graph: SpikingGraph, spikes: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"\(T, B, 3, 40, 40\)"):
        run_onnx(exported, spikes[:, :, :1])
    with pytest.raises(InputError, match="the state has shapes"):
        run_onnx(exported, spikes, graph.rest(3))
