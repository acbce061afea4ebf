"""Runs killed by SIGKILL, in a step, in the middle of a checkpoint and at random moments, go on to the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ashnets.runs import train
from ashnets.training.checkpoint import checkpoints

CHANGES = {
    "queue": 20,
    "momentum": 0.9,
    "ema": 0.9,
    "checkpoint_every": 1,
    "workers": 1,
    "stdp": {"layers": 1, "images": 8},
}
PROGRAM = """
import importlib, os, signal, sys
from ashnets.runs import train

recipe, corpus, run, resume, module, name, calls = sys.argv[1:]
if module:
    place, left = importlib.import_module(module), int(calls)
    plain = getattr(place, name)

    def deadly(*arguments):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments)

    setattr(place, name, deadly)
print("ready", flush=True)
train(recipe, corpus=corpus, output=run, resume=resume == "True", progress=False)
"""
IN_A_STEP = "ashnets.training.learner", "step_ended"  # the weights have changed, and no file has
IN_A_CHECKPOINT = "ashnets.training.checkpoint", "write_json"  # the tensors are written, and its state is not


@pytest.fixture(scope="module")
def undisturbed(corpus, recipe_data, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Recipe, corpus and the folder of a run that nothing befell."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = folder / "recipe.yaml"
    phases = [{**phase, "epochs": 1} for phase in recipe_data["phases"]]
    recipe.write_text(yaml.safe_dump({**recipe_data, **CHANGES, "phases": phases}))
    train(recipe, corpus=corpus, output=folder / "run", progress=False)
    return recipe, corpus, folder / "run"


def writes_a_checkpoint(run: Path) -> bool:
    """Half of a checkpoint is on the disk."""
    try:
        return any((run / "checkpoints").glob(".step-*.part/*"))
    except FileNotFoundError:  # renamed between two looks
        return False


def start(recipe: Path, corpus: Path, run: Path, place: tuple[str, str] = ("", ""), calls: int = 0) -> subprocess.Popen:
    """Start the run in a separate process, or resume it; returns shortly before the training begins.

    Args:
        place, calls: module and name of a function; the process kills itself at this call of it, counted from 1.
    """
    arguments = [str(recipe), str(corpus), str(run), str((run / "recipe.yaml").exists()), *place, str(calls)]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process: subprocess.Popen, run: Path, seconds: float, in_checkpoint: bool) -> bool:
    """Kill after so many seconds, or then at the next sight of a checkpoint in the making; False if it ended before."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and (time.monotonic() < deadline or (in_checkpoint and not writes_a_checkpoint(run))):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def assert_same_end(run: Path, other: Path) -> None:
    last = [checkpoints(folder / "checkpoints")[-1] for folder in (run, other)]
    assert last[0].name == last[1].name
    for path in last[0].glob("*.safetensors"):
        left, right = load_file(path), load_file(last[1] / path.name)
        assert left.keys() == right.keys()
        assert not [key for key in left if not torch.equal(left[key], right[key])], path.name
    assert (run / "model" / "model.safetensors").read_bytes() == (other / "model" / "model.safetensors").read_bytes()
    for name in ("log.jsonl", "steps.jsonl"):
        lines = [[json.loads(line) for line in (folder / name).read_text().splitlines()] for folder in (run, other)]
        timeless = [[{k: v for k, v in record.items() if k != "seconds"} for record in part] for part in lines]
        assert timeless[0] == timeless[1], name


def assert_it_ends_undisturbed(undisturbed, run: Path) -> None:
    """Resume for the last time."""
    recipe, corpus, other = undisturbed
    assert start(recipe, corpus, run).wait(timeout=600) == 0
    assert_same_end(run, other)
    assert not list(run.rglob(".*.part"))


@pytest.mark.timeout(1800)
def test_killed_in_a_step_and_in_a_checkpoint(undisturbed, tmp_path):
    """In the third of four steps of the first epoch, then in the checkpoint after the seventh step.

    That checkpoint is the sixth of the resumed run: one is of the end of the first phase.
    """
    recipe, corpus, _ = undisturbed
    run, found = tmp_path / "run", []
    for place, calls in ((IN_A_STEP, 3), (IN_A_CHECKPOINT, 6)):
        assert start(recipe, corpus, run, place, calls).wait(timeout=600) == -signal.SIGKILL
        found.append(([path.name for path in checkpoints(run / "checkpoints")][-1], writes_a_checkpoint(run)))
    assert found == [("step-00000002", False), ("step-00000006", True)]
    assert_it_ends_undisturbed(undisturbed, run)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_twenty_times(undisturbed, tmp_path):
    """At random moments from the first instant on, every other time inside a checkpoint."""
    recipe, corpus, _ = undisturbed
    draw, kills = random.Random(0), 0
    for number in range(20):
        run = tmp_path / f"run-{number}"
        for i in range(20 - kills):
            kills += kill(start(recipe, corpus, run), run, draw.uniform(0.0, 1.5), i % 2 == 1)
            if (run / "model" / "training.json").exists():
                break
        assert_it_ends_undisturbed(undisturbed, run)
        if kills >= 20:
            break
    assert kills >= 20
