"""Spikes to text from exported files only: the integer graph and the reading graph find the same texts as the model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, InputError, WeightsError
from ashnets.export.exporting import export_model
from ashnets.export.graph import from_model
from ashnets.export.onnx.reading import read_spikes, write_onnx_reading
from ashnets.export.onnx.running import run_onnx
from ashnets.export.onnx.sequence import write_onnx_sequence
from ashnets.metrics.retrieval import recall_at
from ashnets.model import AshNetsForRetrieval
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.sampling import probabilistic_sampling
from ashnets.ties import COSINES, products

KEYS = list(range(12))


@pytest.fixture(scope="module", params=["int8", "float"])
def model(request: pytest.FixtureRequest, config: AshNetsConfig, encoder: AbstractEncoder) -> AshNetsForRetrieval:
    changes = {"precision": request.param, "token_reading": "positions" if request.param == "int8" else "mean"}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AshNetsForRetrieval(AshNetsConfig(**{**config.to_dict(), **changes})).eval()
        for parameter in model.stua.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.5)
    model.ashnets.vision.abstract_encoder.load_state_dict(encoder.state_dict())
    return model


@torch.no_grad()
def test_exported_spikes_find_the_texts_that_the_model_finds(model: AshNetsForRetrieval, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(12, 3, 40, 40, generator=generator)
    visual = model.ashnets.vision(images, image_keys=KEYS, readout="per_image")
    ours = model.project_spiking(visual)
    graph = from_model(model)
    write_onnx_sequence(graph, tmp_path / "network.onnx")
    write_onnx_reading(model, tmp_path / "reading.onnx")
    spikes = probabilistic_sampling(images, KEYS, graph.time_steps, graph.encoding.seed)
    counts = run_onnx(tmp_path / "network.onnx", spikes)[0]["concepts"].sum(0)
    own = visual.concept_counts.transpose(1, 2).unflatten(2, counts.shape[-2:])
    torch.testing.assert_close(
        read_spikes(tmp_path / "reading.onnx", own, visual.summary_ratio), ours, atol=1e-5, rtol=0
    )
    found = read_spikes(tmp_path / "reading.onnx", counts, visual.summary_ratio)
    texts = F.normalize(
        ours[torch.randperm(12, generator=generator)] + 0.05 * torch.randn(ours.shape, generator=generator), dim=-1
    )
    gold = [{int(i)} for i in (ours @ texts.T).argmax(1)]
    recalls = [recall_at(products(one, texts), gold, scale=COSINES) for one in (found, ours)]
    assert recalls[1]["R@1"] > 0
    if model.config.precision == "int8":  # its counts are the model's to the spike
        assert torch.equal(counts, own)
        assert recalls[0] == recalls[1]
    alone = read_spikes(tmp_path / "reading.onnx", counts)
    assert not torch.allclose(alone, found, atol=1e-3), "SR changes the embedding"
    with pytest.raises(InputError, match="takes 20 concepts"):
        read_spikes(tmp_path / "reading.onnx", counts[:, :10])
    with pytest.raises(WeightsError, match="its format is"):
        read_spikes(tmp_path / "network.onnx", counts)


def test_the_folder_has_the_reading_and_its_readme_uses_it(model: AshNetsForRetrieval, tmp_path: Path) -> None:
    embeds = F.normalize(torch.randn(3, model.config.projection_size), dim=-1)
    report = export_model(model, "onnx", tmp_path / "out", texts=(["a cat", "a dog", "ein Käse"], embeds))
    assert {"reading.onnx", "texts.npz"} <= set(report["files"])
    with np.load(tmp_path / "out" / "texts.npz", allow_pickle=False) as stored:
        assert stored["texts"].tolist() == ["a cat", "a dog", "ein Käse"]
        assert np.array_equal(stored["embeds"], embeds.numpy())
    assert "## From spikes to text" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_without_onnx_the_other_formats_have_no_reading(
    model: AshNetsForRetrieval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # every import of it now fails, as if it were not installed
    embeds = F.normalize(torch.randn(3, model.config.projection_size), dim=-1)
    report = export_model(model, "sana-fe", tmp_path / "out", texts=(["a cat", "a dog", "a bird"], embeds))
    assert "has no reading of texts" in report["warnings"][-1] and 'pip install -e ".[onnx]"' in report["warnings"][-1]
    assert "texts.npz" not in report["files"]
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "## From spikes to text" not in readme and "Warning: the folder has no reading" in readme


def test_an_encoder_alone_has_no_reading(encoder: AbstractEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="AbstractEncoder has no projection from spikes to text"):
        write_onnx_reading(encoder, tmp_path / "reading.onnx")
