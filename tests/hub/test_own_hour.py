"""The hour of docs/own-images.md by its own commands: from a folder of captioned images to a model on the Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ashnets
from ashnets.cli import main
from ashnets.data.corpus import open_gallery

SHORT = ["phases.0.epochs=2", "phases.1.epochs=2", "batch_size=32", "fused_pairs=8", "schedule.warmup_steps=2"]


@pytest.fixture
def my_images(repository, tmp_path) -> Path:
    """60 drawings as PNG, each with a text file of its captions; a copy under another caption, and a strange file."""
    folder = tmp_path / "my-images"
    folder.mkdir()
    rows = list(open_gallery(repository / "zoo" / "gallery"))[:60]
    for row in rows:
        shutil.copy(row["path"], folder)
        (folder / row["path"].name).with_suffix(".txt").write_text("\n".join(row["captions"]), encoding="utf-8")
    shutil.copy(rows[0]["path"], folder / "copy.png")
    (folder / "copy.txt").write_text("a zyzzyva beside a xylophone")
    (folder / "phone.heic").write_bytes(b"?")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_hour(hub, my_images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASHNETS_CACHE", str(tmp_path / "own-cache"))
    settings = [word for change in SHORT for word in ("--set", change)]

    def run(*words: str) -> str:
        assert main(list(words)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    checked = json.loads(run("data", "check", "my-images", "--json", "--quiet"))
    assert checked["splits"]["valid"]["images"] == 12 and checked["duplicates"]["with other captions"] == 1
    assert any(".heic" in note for note in checked["notes"])

    said = run("train", "own-pairs", "--corpus", "my-images", "--output", "runs/mine", *settings)
    record = json.loads(Path("runs/mine/model/training.json").read_text())
    assert "The model is in runs/mine/model." in said and record["validation"]["images"] == 12
    assert any("new ones from package:" in origin and "vocabulary" in origin for origin in record["initialized"])
    for line in said[said.index("Next:") :].splitlines()[1:]:
        assert line.strip().startswith("ashnets ")

    model = "runs/mine/model"
    run("evaluate", model, "retrieval", "my-images", "--split", "all", "--output", "out/mine")
    (own,) = json.loads(Path("out/mine/results.json").read_text())["models"].values()
    (ranking,) = own["splits"]["all"]
    assert ranking["images"] == 61 and 0 < ranking["trained on"]["images"] <= 61, "estimated from a sketch"
    for way in ("text_to_image", "image_to_text"):
        assert ranking[way]["R@1"] > 5 * ranking["chance"][way]["R@1"], ranking
    assert Path("out/mine/examples.html").is_file()

    found = json.loads(run("search", "my-images", "a pineapple", "--model", model, "--page", "page.html", "--json"))
    assert len(found["hits"]) == 10 and Path("page.html").read_text().count("<img") == 10
    shown = ["show", "my-images/copy.png", "--model", model, "--texts", "my-images", "--page", "show.html"]
    assert "summary ratio" in run(*shown) and "Nearest texts" in Path("show.html").read_text()

    run("export", model, "--to", "onnx", "--output", "out/onnx")
    run("energy", model, "--images", "my-images", "--sample", "4", "--output", "out/energy")
    given = ["--license", "mit", "--training-data", "sixty drawings"]
    given += ["--exports", "out/onnx", "--energy", "out/energy/energy.json"]
    run("publish", "runs/mine", "--repo", "someone/mine", *given)

    code = (
        "import ashnets, torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained('someone/mine').eval()\n"
        "batch = AutoProcessor.from_pretrained('someone/mine')(images='my-images/copy.png')\n"
        "with torch.inference_mode():\n"
        "    print(float(model(**batch).visual.output.double().sum()))"
    )
    environment = {**os.environ, **hub.environment(tmp_path / "other-cache")}
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    batch = ashnets.AshNetsProcessor.from_pretrained(model)(images="my-images/copy.png")
    with torch.inference_mode():
        ours = ashnets.from_pretrained(model).ashnets(**batch).visual.output
    assert float(elsewhere.stdout) == pytest.approx(float(ours.double().sum()), rel=1e-5), elsewhere.stderr
