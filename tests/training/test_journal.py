"""The log of a run: what is written, what a resumed run takes back, and how it shows."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from ashnets.errors import TrainingError
from ashnets.training.journal import Journal, Progress, read_records


def events_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag → (step, value) as TensorBoard's own reader gives them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "events"))
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def run_part(journal: Journal, first_epoch: int, last_epoch: int, offset: float = 0.0) -> None:
    """Epochs of two steps each."""
    for epoch in range(first_epoch, last_epoch + 1):
        for step in (2 * epoch - 1, 2 * epoch):
            journal.step({"step": step, "epoch": epoch, "loss": step + offset, "lr_spiking": 0.5, "seconds": step})
        journal.epoch(
            {
                "epoch": epoch,
                "step": 2 * epoch,
                "phase": "all",
                "loss": 2 * epoch - 0.5 + offset,
                "valid_text_to_image_R@1": 0.25,
                "seconds": 2.0 * epoch + 0.5,
            }
        )


def test_records_and_events(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.seconds_before == 0.0
        run_part(journal, 1, 2)
        # before anything is closed: a killed run leaves it all
        assert [r["epoch"] for r in read_records(tmp_path / "log.jsonl")] == [1, 2]
        assert [r["step"] for r in read_records(tmp_path / "steps.jsonl")] == [1, 2, 3, 4]
        events = events_of(tmp_path)
    assert events["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert events["epoch/loss"] == [(2, 1.5), (4, 3.5)]
    assert events["lr/spiking"] == [(s, 0.5) for s in (1, 2, 3, 4)]
    assert events["valid/text_to_image_R@1"] == [(2, 0.25), (4, 0.25)]
    assert "train/step" not in events and "epoch/phase" not in events


def test_numbers_of_other_libraries_and_no_numbers(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.step(
            {"step": 1, "epoch": 1, "a": np.float32(0.5), "b": torch.tensor(2.0), "c": math.nan, "d": math.inf}
        )
    line = (tmp_path / "steps.jsonl").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(line, parse_constant=refuse) == {"step": 1, "epoch": 1, "a": 0.5, "b": 2.0, "c": None, "d": None}
    assert math.isnan(events_of(tmp_path)["train/c"][0][1])


def test_a_resumed_run_logs_nothing_twice(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        run_part(journal, 1, 3)
        journal.warn("too late")
    for name in ("log.jsonl", "steps.jsonl"):
        with open(tmp_path / name, "a", encoding="utf-8") as file:
            file.write('{"epoch": 2, "step": 4, "lo')  # the writer was killed here
    # the checkpoint was taken after step 4 but before epoch 2 was closed: the epoch's record at that step goes too
    with Journal(tmp_path, after=(1, 4)) as journal:
        assert journal.seconds_before == 4.0, "of step 4; the last kept epoch says 2.5"
        assert [r["epoch"] for r in read_records(tmp_path / "log.jsonl")] == [1]
        assert [r["step"] for r in read_records(tmp_path / "steps.jsonl")] == [1, 2, 3, 4]
        journal.epoch({"epoch": 2, "step": 4, "phase": "all", "loss": 13.5})
        run_part(journal, 3, 3, offset=10)
    with Journal(tmp_path, after=(3, 6)) as journal:
        assert journal.seconds_before == 6.5
        run_part(journal, 4, 4, offset=20)

    steps, epochs = read_records(tmp_path / "steps.jsonl"), read_records(tmp_path / "log.jsonl")
    losses = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 15.0), (6, 16.0), (7, 27.0), (8, 28.0)]
    means = [(2, 1.5), (4, 13.5), (6, 15.5), (8, 27.5)]
    assert [(r["step"], r["loss"]) for r in steps] == losses
    assert [(r["step"], r["loss"]) for r in epochs] == means
    assert [r["epoch"] for r in epochs] == [1, 2, 3, 4]
    events = events_of(tmp_path)
    assert events["train/loss"] == losses
    assert events["epoch/loss"] == means
    assert len(list((tmp_path / "events").iterdir())) == 3, "a file for each part, none of them rewritten"


def test_a_run_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        run_part(journal, 1, 1)
    with Journal(tmp_path, after=(0, 0)) as journal:
        assert journal.seconds_before == 0.0
        run_part(journal, 1, 1, offset=10)
    assert [r["loss"] for r in read_records(tmp_path / "steps.jsonl")] == [11, 12]
    assert events_of(tmp_path)["train/loss"] == [(1, 11.0), (2, 12.0)]


def test_a_new_run_spares_an_old_log(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        run_part(journal, 1, 1)
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(TrainingError, match=r"log\.jsonl already contains a log"):
        Journal(tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_warnings(tmp_path: Path, capsys) -> None:
    with Journal(tmp_path) as journal:
        run_part(journal, 1, 1)
        journal.warn("conv1 is dead", layer="conv1")
    assert read_records(tmp_path / "steps.jsonl")[-1] == {
        "kind": "warning",
        "step": 2,
        "epoch": 1,
        "layer": "conv1",
        "text": "conv1 is dead",
    }
    assert capsys.readouterr().err == "warning: conv1 is dead\n"


def test_without_tensorboard(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # what an import of a missing module meets
    with Journal(tmp_path) as journal:
        run_part(journal, 1, 1)
    assert capsys.readouterr().err.count('pip install -e ".[train]"') == 1
    assert not (tmp_path / "events").exists()
    assert [r.get("kind") for r in read_records(tmp_path / "steps.jsonl")] == ["warning", None, None]


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """A limit on the file size acts like a full disk; earlier lines of the log remain readable."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from ashnets.training.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "try:\n"
        "    for step in range(1, 1000): journal.step({'step': step, 'epoch': 1, 'text': 'x' * 200})\n"
        "except OSError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert "File too large" in result.stdout
    steps = [record["step"] for record in read_records(tmp_path / "steps.jsonl")]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 50


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal() -> None:
    stream = Terminal()
    with Progress(4, 1, "epoch 2/3 all", run_left=7, stream=stream) as bar:
        for loss in (3.0, 2.0, 1.0):
            bar.advance(10, loss)
        used = psutil.Process().memory_info().rss / 1e9
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith("epoch 2/3 all: 4/4") and "loss 1.000" in last and "pairs/s" in last and "left" in last
    assert float(last.split(" GB")[0].split()[-1]) == pytest.approx(used, abs=0.3)


def test_progress_in_a_file_is_a_few_lines(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ashnets.training.journal.time", SimpleNamespace(monotonic=lambda: now[0]))
    stream = io.StringIO()
    with Progress(200, 0, "epoch 1/2 all", run_left=400, stream=stream) as bar:
        for _ in range(180):
            now[0] += 1.0
            bar.advance(8, 0.5)
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"epoch 1/2 all: step {n}/200" for n in (60, 120, 180, 180)]
    # by hand: 8 pairs a second; 140 steps are left in the epoch and 340 in the run, a second each
    assert "02:20 left, 8 pairs/s, loss 0.500" in lines[0] and lines[0].endswith("run 05:40 left")


def test_progress_can_be_silent() -> None:
    stream = Terminal()
    with Progress(2, enabled=False, stream=stream) as bar:
        bar.advance(1, 1.0)
    assert stream.getvalue() == ""
