"""``ashnets demo`` from end to end, and its parts on a very small model."""

from __future__ import annotations

import json
import math
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ashnets.cli.demo import demonstrate
from ashnets.cli.demo.gallery import Ranking, bundled_gallery, rank_gallery
from ashnets.cli.demo.terminal import Terminal
from ashnets.configuration import AshNetsConfig
from ashnets.export import run_onnx
from ashnets.model import AshNetsForPreTraining
from ashnets.model.tdbn import calibrate
from ashnets.processor import AshNetsProcessor

LETTERS = string.ascii_lowercase
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]


@pytest.fixture(scope="module")
def small() -> tuple[AshNetsForPreTraining, AshNetsProcessor]:
    """A random model of 32 px whose spiking layers fire, and its processor."""
    config = AshNetsConfig(
        backbone="resnet-tiny",
        backbone_widths=[8, 8],
        image_size=32,
        hidden_size=24,
        num_concepts=12,
        time_steps=4,
        readout="per_image",
        spiking_channels=[4, 6, 8],
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=len(PIECES),
        max_text_length=96,
        max_position_embeddings=96,
        projection_size=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AshNetsForPreTraining(config).eval()
    processor = AshNetsProcessor.from_config(config, PIECES)
    vision = model.ashnets.vision
    images = processor(images=[row["path"] for row in bundled_gallery().rows[:16]])
    calibrate(vision.abstract_encoder, [vision.sample(**images)], run=vision.abstract_encoder.run)
    return model, processor


@pytest.fixture(scope="module")
def ranking(small: tuple[AshNetsForPreTraining, AshNetsProcessor]) -> Ranking:
    return rank_gallery(*small, bundled_gallery(), 16, Terminal(1))


def test_scores_are_those_of_the_model(small: tuple[AshNetsForPreTraining, AshNetsProcessor], ranking: Ranking) -> None:
    """Single images and sentences in a plain loop, against the batched ranking."""
    model, processor = small
    first, second, third = ranking.scores.values()
    tau = float(model.temperature().detach())
    for query in (0, 150, 299):
        ahead = second["text_to_image"][query].argsort(descending=True)[:16].tolist()
        assert sorted(ahead) == sorted(first["text_to_image"][query].topk(16).indices.tolist())
        matching = []
        for item in ahead[:5]:
            row = ranking.gallery[item]
            inputs = processor(images=row["path"], image_ids=row["image_id"], text=ranking.sentences[query])
            with torch.no_grad():
                out = model(**inputs)
            similarity = float(out.text_embeds @ out.image_embeds.T)
            assert float(first["text_to_image"][query, item]) == pytest.approx(similarity, abs=1e-5)
            assert float(first["image_to_text"][item, query]) == pytest.approx(similarity, abs=1e-5)
            matching.append(float(out.itm_logits[0, 1] - out.itm_logits[0, 0]))
            assert float(second["text_to_image"][query, item]) == pytest.approx(matching[-1], abs=1e-5)
            both = similarity / tau + matching[-1]
            assert float(third["text_to_image"][query, item]) == pytest.approx(both, abs=1e-4)
        assert matching == sorted(matching, reverse=True)


def test_recalls_state_their_size_and_chance(ranking: Ranking) -> None:
    recalls = ranking.recalls()
    assert [(r["direction"], r["concepts"], r["n"]) for r in recalls] == [
        (direction, part, n)
        for direction in ("text_to_image", "image_to_text")
        for _ in range(3)
        for part, n in (("seen", 240), ("new", 60))
    ]
    assert all(r["chance"]["R@10"] == pytest.approx(10 / 300, rel=0.1) and r["candidates"] == 300 for r in recalls)
    # By sorting: the share of sentences with a right image among the ten best.
    scores = ranking.scores["ITC"]["text_to_image"]
    hits = [
        not ranking.gold[query].isdisjoint(scores[query].argsort(descending=True)[:10].tolist())
        for query in ranking.part("seen")
    ]
    assert recalls[0]["R@10"] == pytest.approx(sum(hits) / 240)


def test_every_step_writes_its_file(
    small: tuple[AshNetsForPreTraining, AshNetsProcessor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demonstrate(*small, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    out = capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(summary["files"].values())
    assert all(name in out for name in summary["files"].values())
    assert "\x1b" not in out  # no colors where nobody watches
    for name in ("contact_sheet", "spikes", "summary_ratio", "at_work_light", "at_work_dark"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 400
            assert len(set(image.convert("L").resize((64, 64)).get_flattened_data())) > 10
    assert summary["onnx"]["differ_from_graph"] == 0
    assert summary["counts"]["images"] == summary["onnx"]["images"] == 32
    assert {one["profile"] for one in summary["energy"]} == {"45nm-fp32", "45nm-int8", "loihi1-with-a100"}
    assert out.count("pJ") >= 6


def test_without_the_onnx_extra_the_rest_is_shown(
    small: tuple[AshNetsForPreTraining, AshNetsProcessor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)  # an import of it fails, as if it were not installed
    summary = demonstrate(*small, tmp_path)
    assert summary["onnx"] is None
    assert 'pip install -e ".[onnx]"' in capsys.readouterr().out
    assert (tmp_path / "summary.json").is_file()
    assert not list(tmp_path.glob("*.onnx"))


NO_NETWORK = """
import socket, sys
def refuse(*arguments):
    raise OSError("the demo needs no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from ashnets.cli import main
sys.exit(main(["demo", "--output", sys.argv[1]]))
"""


def test_the_bundled_model_end_to_end(tmp_path: Path, repository: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(tmp_path)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    images = {"contact_sheet", "spikes", "summary_ratio", "at_work_light", "at_work_dark"}
    assert set(summary["files"]) == {*images, "onnx", "summary"}
    assert all((tmp_path / name).is_file() and name in done.stdout for name in summary["files"].values())

    for recall in summary["retrieval"]:
        floor = 8 if recall["concepts"] == "seen" else 1.5
        assert recall["R@10"] > floor * recall["chance"]["R@10"], recall
    assert summary["onnx"]["differ_from_graph"] == 0
    assert summary["onnx"]["differ_from_model"] < summary["onnx"]["compared"] / 1000
    assert all(0 < rate < 0.9 for rate in summary["firing_rates"].values())
    assert all(math.isfinite(one["spiking"]["total"]) for one in summary["energy"])
    assert summary["environment"]["torch"] == torch.__version__

    spikes, _ = run_onnx(tmp_path / summary["files"]["onnx"], torch.zeros(1, 1, 3, 96, 96))
    assert list(spikes) == list(summary["firing_rates"])
