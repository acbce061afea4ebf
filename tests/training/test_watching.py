"""One process of two fails: both end soon, and both say why. If it only lacks some images, both leave them out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist
import yaml
from PIL import Image

from ashnets.data.corpus import open_corpus
from ashnets.training import watching

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(even_corpus, tmp_path_factory) -> Path:
    """The small corpus as a folder of images."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "valid"):
        for row in open_corpus(even_corpus).split(split):
            name = f"{row['image_id'].replace('/', '-')}.png"
            Image.open(io.BytesIO(row["image"])).save(root / name)
            (root / name).with_suffix(".txt").write_text(row["name"])
    return root


def start(how: str, recipe: Path, folder: Path, place: Path) -> subprocess.Popen:
    """The two processes; the run is ``place/run``."""
    options = ["--standalone", "--nproc_per_node", "2", "--redirects", "3", "--log-dir", str(place / "logs")]
    script = [str(HERE / "failing_rank.py"), how, str(recipe), str(folder), str(place / "run")]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *script],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("how", "second", "first"),
    [
        ("corrupt", "error: none of 4 images could be read", "process 1 of 2 has failed: DataError: none of 4 images"),
        pytest.param("kill", None, "error: ", marks=pytest.mark.slow),
        pytest.param(
            "delay",
            "error: process 0 of 2 has failed: TrainingError: process 0 of 2 waited 10 s (rank_timeout) for another",
            "error: process 0 of 2 waited 10 s (rank_timeout) for another one, which stands still",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_no_process_waits_alone(folder, recipe_data, tmp_path, how, second, first):
    phases = [{**recipe_data["phases"][0], "epochs": 50}]
    recipe = tmp_path / "recipe.yaml"
    settings = {"phases": phases, "rank_timeout": 10 if how == "delay" else 100, "max_skipped": 100}
    recipe.write_text(yaml.safe_dump({**recipe_data, **settings}))
    process = start(how, recipe, folder, tmp_path)
    steps = tmp_path / "run" / "steps.jsonl"
    while process.poll() is None and not (steps.is_file() and steps.read_text()):
        time.sleep(0.2)
    process.communicate(timeout=300)
    assert process.returncode != 0
    said = [path.read_text() for path in sorted(tmp_path.glob("logs/*/attempt_0/*/stderr.log"))]
    assert len(said) == 2
    assert first in said[0], said[0]
    assert ("rank_timeout" in said[0]) == (how == "delay"), said[0]
    assert "--resume" in said[0]
    assert second is None or second in said[1], said[1]


@pytest.mark.timeout(900)
def test_all_processes_leave_out_what_one_cannot_read(folder, recipe_data, tmp_path):
    """Also what it first meets while statistics are gathered; else the plans of the next epoch would differ."""
    phases = [{**phase, "epochs": epochs} for phase, epochs in zip(recipe_data["phases"], (2, 1), strict=True)]
    stdp = {"layers": 1, "images": 8, "batch": 4}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump({**recipe_data, "phases": phases, "stdp": stdp, "max_skipped": 100, "rank_timeout": 300})
    )
    process = start("partly", recipe, folder, tmp_path)
    _, said = process.communicate(timeout=800)
    assert process.returncode == 0, said
    planned = [json.loads((tmp_path / f"planned-{rank}.json").read_text()) for rank in (0, 1)]
    assert planned[0] == planned[1] and len(planned[0]) > 4
    log = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    lost = {line["image"] for line in log if line.get("kind") == "warning" and "image" in line}
    damaged = {path.name for path in sorted(folder.glob("*.png"))[::3]}
    assert lost and lost <= damaged
    shown = {index for shares in planned[0][-1] for share in shares for index in share}
    assert 24 - len(lost) <= len(shown) < 24


@pytest.mark.parametrize(("backend", "moves", "notes"), [("nccl", False, 1), ("nccl", True, 0), ("gloo", False, 0)])
def test_a_note_comes_before_the_trace_of_nccl(monkeypatch, capfd, backend, moves, notes):
    """One process that thinks it is the second of two, and that its last step ended 999 of 1,000 seconds ago."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    long_ago = time.monotonic() - 999
    watch = SimpleNamespace(rank=1, ranks=2, rank_timeout=1000, noted=False, step_ended=long_ago)
    monkeypatch.setattr(watching, "_current", watch)
    if moves:
        watching.step_ended()
    for _ in range(2):
        watching._Watch._note(watch)
    said = capfd.readouterr().err
    assert said.count("note: process 1 of 2 has ended no step for ") == notes
    assert said.count("waited 1000 s (rank_timeout) for another one, which stands still; the last checkpoint") == notes


FAILS_ONCE = """
import os, time
import torch.distributed as dist
from ashnets.training.watching import watched

dist.init_process_group("gloo")
with watched(60):
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
        raise OSError("the first attempt fails")
    dist.barrier()
    time.sleep(4)  # so that the watching thread looks several times
"""


@pytest.mark.slow
def test_torchrun_may_start_all_processes_again(tmp_path):
    script = tmp_path / "fails_once.py"
    script.write_text(FAILS_ONCE)
    options = ["--standalone", "--nproc_per_node", "2", "--max-restarts", "1", "--redirects", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "--log-dir", str(tmp_path / "logs"), str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    said = {path.parts[-3]: path.read_text() for path in tmp_path.glob("logs/*/attempt_*/1/stderr.log")}
    assert "the first attempt fails" in said["attempt_0"]
    assert done.returncode == 0, said.get("attempt_1", done.stderr)
