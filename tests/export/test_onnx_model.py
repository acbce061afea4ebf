"""The whole model as one ONNX graph, against torch."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, InputError, WeightsError
from ashnets.export.emulator import IntegerLayer, emulate
from ashnets.export.graph import GraphLayer, InputEncoding, SpikingGraph, from_model
from ashnets.export.onnx.model import (
    TOLERANCE,
    FoldedEncoder,
    largest_difference,
    quiet,
    run_onnx_model,
    sample_inputs,
    write_onnx_model,
)
from ashnets.export.onnx.running import run_onnx
from ashnets.model import HEADS
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.integer import IntegerConstants

pytestmark = pytest.mark.timeout(900)  # an export takes ten seconds of a core


def build(config: AshNetsConfig, encoder: AbstractEncoder, task: str, **changes: object):
    """A small model of a task, with the encoder that is awake."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = HEADS[task](AshNetsConfig(**{**config.to_dict(), "num_hidden_layers": 1, **changes})).eval()
    getattr(model, "ashnets", model).vision.abstract_encoder.load_state_dict(encoder.state_dict())
    return model


@pytest.fixture(scope="module")
def retrieval(config: AshNetsConfig, encoder: AbstractEncoder):
    return build(config, encoder, "retrieval")


@pytest.fixture(scope="module")
def exported(retrieval, tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = retrieval.ashnets.vision.abstract_encoder
    path = write_onnx_model(retrieval, tmp_path_factory.mktemp("model") / "model.onnx", layer_counts=True)
    assert retrieval.ashnets.vision.abstract_encoder is before
    assert "embed_text" not in vars(retrieval.ashnets.transformer)
    return path


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 11)])
def test_outputs_are_those_of_torch_whatever_the_batch(exported: Path, retrieval, batch: int, length: int) -> None:
    inputs = sample_inputs(retrieval, batch, length, seed=batch)
    found = run_onnx_model(exported, inputs)
    assert set(found) >= {"image_embeds", "text_embeds", "itm_logits", "count_concepts"}
    assert found["itm_logits"].shape == (batch, 2)
    assert max(largest_difference(retrieval, found, inputs).values()) < TOLERANCE
    # The model with convolution and tdBN apart: a spike of thousands may differ, the outputs stay near.
    assert max(largest_difference(retrieval, found, inputs, folded=False).values()) < 0.05


def test_the_spiking_branch_is_the_neutral_graph(exported: Path, retrieval) -> None:
    inputs = sample_inputs(retrieval, 2, 4, seed=5)
    expected, _ = from_model(retrieval).run(inputs["spikes"])
    found = run_onnx_model(exported, inputs)
    for name, fired in expected.items():
        assert found[f"count_{name}"].tolist() == fired.sum((0, 2, 3, 4)).int().tolist()
    # Spikes matter: with none the image's embedding is another.
    silent = run_onnx_model(exported, {**inputs, "spikes": torch.zeros_like(inputs["spikes"])})
    assert (silent["image_embeds"] - found["image_embeds"]).abs().max() > 1e-3


def test_the_file_says_what_it_is(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [s.version for s in model.opset_import if s.domain == ""] == [20]
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["format"] == "ashnets-onnx-model/2"
    assert properties["class"] == "AshNetsForRetrieval"
    shapes = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert list(shapes) == ["pixel_values", "input_ids", "attention_mask", "spikes"]
    assert shapes["pixel_values"] == ["B", 3, 40, 40]
    assert shapes["spikes"] == [6, "B", 3, 40, 40]
    assert shapes["input_ids"] == ["B", "L"]


def test_damage_and_wrong_input_are_refused(exported: Path, retrieval, tmp_path: Path) -> None:
    inputs = sample_inputs(retrieval, 2, 4)
    with pytest.raises(InputError, match="given: input_ids"):
        run_onnx_model(exported, {"input_ids": inputs["input_ids"]})
    with pytest.raises(InputError, match="cannot run"):
        run_onnx_model(exported, {**inputs, "pixel_values": inputs["pixel_values"][:, :, :-1]})
    with pytest.raises(WeightsError, match="'ashnets-onnx-model/2'"):
        run_onnx(exported, inputs["spikes"])
    data, cut = exported.read_bytes(), tmp_path / "cut.onnx"
    for length in range(0, len(data), len(data) // 10):
        cut.write_bytes(data[:length])
        with pytest.raises(WeightsError, match="export it again"):
            run_onnx_model(cut, inputs)


@torch.no_grad()
@pytest.mark.parametrize("precision", ["float", "int8"])
def test_the_folded_encoder_answers_as_the_graph(
    precision: str, config: AshNetsConfig, encoder: AbstractEncoder, spikes: torch.Tensor
) -> None:
    other = AbstractEncoder(AshNetsConfig(**{**config.to_dict(), "precision": precision})).eval()
    other.load_state_dict(encoder.state_dict())
    graph = from_model(other)
    found = FoldedEncoder(graph)(spikes)
    expected = graph.run(spikes)[0]["concepts"].sum(0).flatten(2).transpose(1, 2)
    assert torch.equal(found.response, expected)
    if precision == "int8":
        assert torch.equal(found.response, other(spikes).response)
    with pytest.raises(InputError, match="group_size=1"):
        FoldedEncoder(graph)(spikes, group_size=2)


class Response(torch.nn.Module):
    """The encoder with a tensor as output."""

    def __init__(self, graph: SpikingGraph) -> None:
        super().__init__()
        self.encoder = FoldedEncoder(graph)

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        return self.encoder(spikes).response


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's exporter
def test_the_decay_of_a_large_membrane_is_exact_in_onnxruntime() -> None:
    """One neuron: v = 6249·64 decays to trunc(399936·3687/4096) = trunc(360000.98), and 40000 more are not above θ."""
    first, second = [254] * 24 + [152], [254, 254, 116]
    weight = torch.tensor(first + second, dtype=torch.int32).view(1, -1, 1, 1)
    size = (weight.shape[1], 1, 1)
    c = IntegerConstants(weight, torch.tensor([1], dtype=torch.int32), threshold=6250, decay=409, step=1.0)
    layer = GraphLayer(
        "concepts",
        weight.float(),
        torch.ones(1),
        (1, 1),
        (0, 0),
        (1, 1),
        1,
        3687 / 4096,
        6250.0,
        size,
        (1, 1, 1),
        1.0,
        c,
    )
    spikes = torch.zeros(2, 1, *size)
    spikes[0, 0, : len(first)] = spikes[1, 0, len(first) :] = 1
    fired, _ = emulate([IntegerLayer("concepts", c)], spikes)
    assert fired["concepts"].sum() == 0
    encoder = Response(SpikingGraph("one", (layer,), 2, "image", 1, InputEncoding())).eval()
    assert encoder(spikes).sum() == 0
    with quiet():
        traced = torch.export.export(encoder, (spikes,), strict=False)
        program = torch.onnx.export(traced, (), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert session.run(None, {session.get_inputs()[0].name: spikes.numpy()})[0].sum() == 0


def test_the_ann_variant_is_refused(config: AshNetsConfig, tmp_path: Path) -> None:
    model = HEADS["base"](AshNetsConfig(**{**config.to_dict(), "summary_ratio": "ann", "num_hidden_layers": 1}))
    with pytest.raises(ConfigurationError, match="AshNetsModel has no spiking branch: give a model that has one"):
        write_onnx_model(model, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task", ["base", "pretraining", "vqa", "nlvr2", "ve"])
def test_every_task(task: str, config: AshNetsConfig, encoder: AbstractEncoder, tmp_path: Path) -> None:
    model = build(config, encoder, task)
    path = write_onnx_model(model, tmp_path / "model.onnx", external_above=10_000)
    assert (tmp_path / "model.onnx.data").is_file()
    for batch, length in ((1, 3), (3, 7)):
        inputs = sample_inputs(model, batch, length)
        assert max(largest_difference(model, run_onnx_model(path, inputs), inputs).values()) < TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("changes", [{"precision": "int8"}, {"summary_ratio": "snn"}, {"carry": "image"}])
def test_every_variant(changes: dict, config: AshNetsConfig, encoder: AbstractEncoder, tmp_path: Path) -> None:
    model = build(config, encoder, "retrieval", **changes)
    path = write_onnx_model(model, tmp_path / "model.onnx")
    inputs = sample_inputs(model, 3, 7)
    assert max(largest_difference(model, run_onnx_model(path, inputs), inputs).values()) < TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backbone", ["resnet18", "vit-b16"])
def test_published_backbones(backbone: str, config: AshNetsConfig, tmp_path: Path) -> None:
    stride = 16 if backbone == "vit-b16" else 32
    changes = {
        "backbone": backbone,
        "backbone_widths": [],
        "image_size": 2 * stride,
        "num_hidden_layers": 1,
        "spiking_channels": [4] * (stride.bit_length() - 1),
        "time_steps": 2,
    }
    model = HEADS["retrieval"](AshNetsConfig(**{**config.to_dict(), **changes})).eval()
    path = write_onnx_model(model, tmp_path / "model.onnx")
    inputs = sample_inputs(model, 2, 5)
    assert max(largest_difference(model, run_onnx_model(path, inputs), inputs).values()) < TOLERANCE
