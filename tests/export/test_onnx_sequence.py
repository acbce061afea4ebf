"""The ONNX sequence graphs, with a Scan and unrolled, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ashnets.errors import ConfigurationError, InputError
from ashnets.export.graph import SpikingGraph, quantized
from ashnets.export.onnx.running import run_onnx
from ashnets.export.onnx.sequence import write_onnx_sequence


@pytest.fixture(scope="module", params=["float", "int8"])
def either(request: pytest.FixtureRequest, graph: SpikingGraph) -> SpikingGraph:
    return quantized(graph) if request.param == "int8" else graph


@pytest.mark.parametrize("unrolled", [None, 6])
def test_every_spike_and_membrane_is_that_of_the_graph(
    unrolled: int | None, either: SpikingGraph, spikes: torch.Tensor, tmp_path: Path
) -> None:
    path = write_onnx_sequence(either, tmp_path / "sequence.onnx", unrolled, layer_spikes=True, layer_counts=True)
    expected, membranes = either.run(spikes)
    outputs, state = run_onnx(path, spikes)
    assert list(outputs) == list(expected)
    for name in expected:
        assert torch.equal(outputs[name], expected[name])
    assert all(map(torch.equal, state, membranes))

    session = onnxruntime.InferenceSession(path)  # as another tool would, for one image
    feeds = {i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in session.get_inputs()[1:]}
    names = [f"count_{name}" for name in expected]
    counts = session.run(names, {"spikes": spikes[:, :1].numpy(), **feeds})
    assert [c.tolist() for c in counts] == [[int(x[:, 0].sum())] for x in expected.values()]


def test_a_scan_takes_any_number_of_steps_and_a_state(
    graph: SpikingGraph, spikes: torch.Tensor, tmp_path: Path
) -> None:
    path = write_onnx_sequence(graph, tmp_path / "scan.onnx")
    expected, end = graph.run(spikes)
    first, state = run_onnx(path, spikes[:1])
    second, last = run_onnx(path, spikes[1:], state)
    assert torch.equal(torch.cat([first["concepts"], second["concepts"]]), expected["concepts"])
    assert all(map(torch.equal, last, end))


def test_an_unrolled_graph_has_no_loop_and_its_own_length(
    graph: SpikingGraph, spikes: torch.Tensor, tmp_path: Path
) -> None:
    path = write_onnx_sequence(graph, tmp_path / "flat.onnx", unrolled=6)
    assert not {"Scan", "Loop", "If"} & {node.op_type for node in onnx.load(path).graph.node}
    with pytest.raises(InputError, match="unrolled for 6 steps and cannot run 5"):
        run_onnx(path, spikes[:5])
    with pytest.raises(ConfigurationError, match="unrolled=0"):
        write_onnx_sequence(graph, path, unrolled=0)


def test_the_file_says_what_it_is(graph: SpikingGraph, tmp_path: Path) -> None:
    model = onnx.load(write_onnx_sequence(graph, tmp_path / "scan.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert [(s.domain, s.version) for s in model.opset_import] == [("", 20)]
    shapes = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert shapes["spikes"] == ["T", "B", 3, 40, 40]
    assert shapes["v_conv3"] == ["B", 12, 5, 5]


def test_external_weights(graph: SpikingGraph, spikes: torch.Tensor, tmp_path: Path) -> None:
    path = write_onnx_sequence(graph, tmp_path / "big.onnx", external_above=1000)
    assert (tmp_path / "big.onnx.data").stat().st_size > 1000
    assert torch.equal(run_onnx(path, spikes)[0]["concepts"], graph.run(spikes)[0]["concepts"])
