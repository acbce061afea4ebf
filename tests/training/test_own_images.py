"""The section "Your own images" of docs/training.md, by its own commands: images and text files to a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ashnets
from ashnets.data.corpus import open_gallery

SHORT = [
    "phases.0.epochs=1",
    "phases.1.epochs=1",
    "batch_size=32",
    "fused_pairs=8",
    "queue=32",
    "schedule.warmup_steps=2",
]


def ashnets_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ashnets", *map(str, arguments)], capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def my_images(repository, tmp_path_factory) -> Path:
    """48 drawings as PNG, each with a text file of its captions beside it."""
    folder = tmp_path_factory.mktemp("own") / "my-images"
    folder.mkdir()
    for row in list(open_gallery(repository / "zoo" / "gallery"))[:48]:
        shutil.copy(row["path"], folder)
        (folder / row["path"].name).with_suffix(".txt").write_text("\n".join(row["captions"]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(my_images) -> Path:
    run = my_images.with_name("run")
    settings = [word for change in SHORT for word in ("--set", change)]
    done = ashnets_command("train", "own-pairs", "--corpus", my_images, "--output", run, *settings)
    assert done.returncode == 0, done.stderr
    assert "pairs/s" in done.stderr and "left" in done.stderr, "progress with throughput and time left"
    return run


def test_looked_at_first(my_images):
    done = ashnets_command("data", "check", my_images, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "folder" and found["corrupt"] == 0
    assert {name: split["images"] for name, split in found["splits"].items()} == {"train": 46, "valid": 2}


def test_the_plan_is_for_people_and_for_programs(my_images, tmp_path):
    command = ["train", "own-pairs", "--corpus", my_images, "--output", tmp_path / "run", "--dry-run"]
    command += ["--set", "batch_size=32"]
    for_people, for_programs = ashnets_command(*command), ashnets_command(*command, "--json")
    plan = json.loads(for_programs.stdout)
    assert plan["images"] == 46 and plan["phases"]["spiking"]["flops_a_step"] > 1e9
    assert "GFLOP" in for_people.stdout and "MB" in for_people.stdout
    assert not (tmp_path / "run").exists()


def test_the_model_is_one_like_any_other(trained, my_images):
    model = ashnets.from_pretrained(trained / "model", task="retrieval")
    processor = ashnets.AshNetsProcessor.from_pretrained(trained / "model")
    batch = processor(images=str(next(my_images.glob("*.png"))), text=["a pineapple", "a fire engine"])
    image = model(pixel_values=batch["pixel_values"], image_keys=batch["image_keys"])
    text = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert (image.image_embeds @ text.text_embeds.T).shape == (1, 2)


def test_measured_on_what_was_held_out(trained, my_images):
    done = ashnets_command("evaluate", trained / "model", "retrieval", my_images, "--split", "valid", "--json")
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"].values()
    assert model["splits"]["valid"][0]["images"] == 2
    assert model["training"]["recipe"] == "own-pairs"


def test_a_corrupt_image_is_found_by_the_check(my_images, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(my_images, folder)
    broken = sorted(folder.glob("*.png"))[5]
    os.truncate(broken, 60)
    done = ashnets_command("data", "check", folder)
    assert done.returncode == 4
    assert broken.name in done.stdout + done.stderr
