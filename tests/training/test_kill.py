"""Runs killed by SIGKILL, at random moments and in the middle of a checkpoint, go on to the same bits."""

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
PROGRAM = (
    "import sys\n"
    "from ashnets.runs import train\n"
    "print('ready', flush=True)\n"
    "train(sys.argv[1], corpus=sys.argv[2], output=sys.argv[3], resume=sys.argv[4] == 'True', progress=False)\n"
)


@pytest.fixture(scope="module")
def undisturbed(corpus, recipe_data, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Recipe, corpus and the folder of a run that nothing befell."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**recipe_data, **CHANGES}))
    train(recipe, corpus=corpus, output=folder / "run", progress=False)
    return recipe, corpus, folder / "run"


def writes_a_checkpoint(run: Path) -> bool:
    """Half of a checkpoint is on the disk."""
    try:
        return any((run / "checkpoints").glob(".step-*.part/*"))
    except FileNotFoundError:  # renamed between two looks
        return False


def start(recipe: Path, corpus: Path, run: Path) -> subprocess.Popen:
    """Start the run in a separate process, or resume it; returns shortly before the training begins."""
    arguments = [str(recipe), str(corpus), str(run), str((run / "recipe.yaml").exists())]
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


def kill_again_and_again(undisturbed, run: Path, plan: list[tuple[float, bool]]) -> int:
    """Kill by the plan, then let the run end; returns how many kills there were."""
    recipe, corpus, other = undisturbed
    kills = 0
    for seconds, in_checkpoint in plan:
        kills += kill(start(recipe, corpus, run), run, seconds, in_checkpoint)
        if (run / "model" / "training.json").exists():
            break
    last = start(recipe, corpus, run)
    assert last.wait(timeout=600) == 0
    assert_same_end(run, other)
    assert not list(run.rglob(".*.part"))
    return kills


@pytest.mark.timeout(1800)
def test_killed_in_a_step_and_in_a_checkpoint(undisturbed, tmp_path):
    assert kill_again_and_again(undisturbed, tmp_path / "run", [(0.7, True), (0.5, False)]) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_twenty_times(undisturbed, tmp_path):
    """At random moments from the first instant on, every other time inside a checkpoint."""
    draw, kills = random.Random(0), 0
    for number in range(20):
        plan = [(draw.uniform(0.0, 1.5), i % 2 == 1) for i in range(20 - kills)]
        kills += kill_again_and_again(undisturbed, tmp_path / f"run-{number}", plan)
        if kills >= 20:
            break
    assert kills >= 20
