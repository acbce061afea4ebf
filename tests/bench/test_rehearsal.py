"""The paper's recipe on folders like the published ones: join, group, train on two processes, kill, resume, search."""

from __future__ import annotations

import json
import subprocess
import time

import published_sets
import pytest
import rehearsed_run

from ashnets.evaluation.evaluating import evaluate
from ashnets.training.checkpoint import checkpoints, read_state

SMALL = {
    **rehearsed_run.SMALL,
    "passes": 2,
    "valid_images": 3,
    "batch_size": 16,
    "fused_pairs": 4,
    "queue": 64,
    "checkpoint_every": 3,
    "rank_timeout": 300,
    "phases.0.epochs": 1,
    "phases.1.epochs": 1,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_papers_recipe_on_small_sets(tmp_path):
    published_sets.write_sets(tmp_path / "data", coco=90, genome=70)
    run = tmp_path / "run"
    words = rehearsed_run.training(tmp_path / "data", run, SMALL)
    process = rehearsed_run.started(words, subprocess.PIPE)
    while process.poll() is None and not checkpoints(run / "checkpoints"):
        time.sleep(0.2)
    assert process.poll() is None, process.stderr.read()
    rehearsed_run.kill(process)
    process.wait()
    assert read_state(checkpoints(run / "checkpoints")[-1])["ranks"] == 2
    process = rehearsed_run.started([*words, "--resume"], subprocess.PIPE)
    _, said = process.communicate(timeout=1500)
    assert process.returncode == 0, said
    epochs = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [line for line in epochs if "valid_text_to_image_R@1" in line]
    assert [line["phase"] for line in epochs] == ["concrete", "spiking"]
    record = json.loads((run / "model" / "training.json").read_text())
    assert record["learned_from"]["name"] == "MSCOCO and Visual Genome"
    assert record["pairs_seen"] == 2 * 2 * record["learned_from"]["images"], "two epochs of two passes"
    assert evaluate(
        [str(run / "model")], "retrieval", tmp_path / "data" / "coco", dataset="coco-captions", progress=False
    )
