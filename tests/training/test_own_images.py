"""The commands of docs/own-images.md around training: images and text files to a model."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import ashnets
from ashnets.cli import app
from ashnets.cli.printing import tell_run
from ashnets.data.corpus import open_gallery
from ashnets.errors import DataError

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
        [sys.executable, "-m", "ashnets", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def my_images(repository, tmp_path_factory) -> Path:
    """48 drawings as PNG, each with a text file with its captions."""
    folder = tmp_path_factory.mktemp("own") / "my-images"
    folder.mkdir()
    for row in list(open_gallery(repository / "zoo" / "gallery"))[:48]:
        shutil.copy(row["path"], folder)
        (folder / row["path"].name).with_suffix(".txt").write_text("\n".join(row["captions"]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def done(my_images) -> subprocess.CompletedProcess[str]:
    """A short run, and what it printed."""
    settings = [word for change in SHORT for word in ("--set", change)]
    run = my_images.with_name("run")
    finished = ashnets_command("train", "own-pairs", "--corpus", my_images, "--output", run, *settings)
    assert finished.returncode == 0, finished.stderr
    assert "pairs/s" in finished.stderr and "left" in finished.stderr, "progress with throughput and time left"
    return finished


@pytest.fixture(scope="module")
def trained(my_images, done) -> Path:
    return my_images.with_name("run")


def test_looked_at_first(my_images):
    done = ashnets_command("data", "check", my_images, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "folder" and found["corrupt"] == 0
    assert {name: split["images"] for name, split in found["splits"].items()} == {"train": 39, "valid": 9}


def test_the_plan_is_for_people_and_for_programs(my_images, tmp_path, capsys):
    command = ["train", "own-pairs", "--corpus", my_images, "--output", tmp_path / "run", "--dry-run", "--json"]
    printed = ashnets_command(*command, "--set", "batch_size=32")
    plan = json.loads(printed.stdout)
    assert plan["images"] == 39 and plan["held_out"] == 9 and plan["phases"]["spiking"]["flops_a_step"] > 1e9
    tell_run(plan, dry_run=True, json_wanted=False)
    sentences, _, numbers = capsys.readouterr().out.partition("\n\n")
    assert "on 39 images; held out to measure it: 9." in sentences
    assert "All tensors: trained weights of ashnets-tiny." in sentences and "Nothing was written." in sentences
    assert "of 39 images looked at fill their frame" in sentences and "drawings and cut-outs fit own-pairs" in sentences
    assert "ashnets evaluate ashnets-tiny retrieval" in sentences, "few images"
    assert "GFLOP" in numbers and "MB" in numbers
    assert not (tmp_path / "run").exists()


def test_the_end_is_worth_reading(done, trained, my_images):
    """Results next to chance, the model, a page, and three commands that run."""
    record = json.loads((trained / "model" / "training.json").read_text())
    measured = record["validation"]
    assert (record["model"], record["changes"], measured["images"]) == ("ashnets-tiny", {}, 9)
    lines = done.stdout.splitlines()
    assert lines[0] == f"On 9 held-out images and their {measured['texts']} texts:"
    for way, name in (("text_to_image", "text to image"), ("image_to_text", "image to text")):
        own, chance = measured[way]["R@1"], measured["chance"][way]["R@1"]
        assert any(line.startswith(f"  {name}: R@1 {own:.3f} (chance {chance:.3f};") for line in lines), done.stdout
    assert sum("R@5, R@10 would say nothing" in line for line in lines) == 2, "among nine"
    assert f"The model is in {trained / 'model'}." in lines
    page = (trained / "validation" / "examples.html").read_text()
    assert page.count('<div class="card">') == measured["texts"]
    items = list(csv.DictReader((trained / "validation" / "items.csv").open()))
    first = sum(item["rank"] == "1" for item in items) / len(items)
    assert measured["text_to_image"]["R@1"] == pytest.approx(first)
    commands = [line.strip() for line in lines[lines.index("Next:") + 1 :]]
    assert [line.split()[:2] for line in commands] == [["ashnets", one] for one in ("evaluate", "search", "show")]
    for line in commands:
        _, name, *words = shlex.split(line)
        typer.main.get_command(app).commands[name].make_context(name, words)  # raises if it does not parse


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
    assert model["splits"]["valid"][0]["images"] == 9
    assert model["training"]["recipe"] == "own-pairs"


def test_a_corrupt_image_is_found_by_the_check(my_images, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(my_images, folder)
    broken = sorted(folder.glob("*.png"))[5]
    os.truncate(broken, 60)
    done = ashnets_command("data", "check", folder)
    assert done.returncode == 4
    assert broken.name in done.stdout + done.stderr


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(my_images, tmp_path):
    """Ctrl-C after the first epoch; the command that it names finishes the run."""
    settings = [word for change in [*SHORT, "phases.0.epochs=2"] for word in ("--set", change)]
    command = ["train", "own-pairs", "--corpus", my_images, "--output", tmp_path / "my run", *settings]
    words = [sys.executable, "-m", "ashnets", *map(str, command)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list((tmp_path / "my run" / "checkpoints").glob("step-*")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "Traceback" not in err, err
    (told,) = [line for line in err.splitlines() if "interrupted" in line]
    again = shlex.split(told.split("`")[1])
    assert again == ["ashnets", *map(str, command), "--resume"]
    finished = ashnets_command(*again[1:])
    assert finished.returncode == 0 and "The model is in" in finished.stdout, finished.stderr


def test_own_images_must_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="own-pairs trains on your own images: give their folder, --corpus FOLDER"):
        ashnets.train("own-pairs", output=tmp_path / "run")


def test_an_interruption_while_the_images_are_opened_says_how_to_go_on(my_images, tmp_path):
    def press(frame, event, argument):
        if event == "call" and frame.f_code.co_name == "open_source":
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(press)
    with pytest.raises(KeyboardInterrupt) as stopped:
        ashnets.train("own-pairs", output=tmp_path / "run", corpus=my_images, overrides=["seed=1"])
    again = f"`ashnets train own-pairs --corpus {my_images} --output {tmp_path / 'run'} --set seed=1`"
    assert str(stopped.value) == f"interrupted before anything was written; start again with {again}"
