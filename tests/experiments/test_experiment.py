"""An experiment from its file to its page: on small drawings, killed, resumed, in several processes."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from PIL import Image

import ashnets
from ashnets.errors import ConfigurationError, DataError, OutputError, TrainingError
from ashnets.experiments.experiment import experiment
from ashnets.training.reading import load_recipe
from ashnets.training.run import Run
from ashnets.zoo.registry import recipe_path

TIMED = ("hours", "seconds an epoch", "memory (MB)")  # what another run need not repeat


def options(small: Path, drawings: Path, output: Path, **more) -> dict:
    return {
        "scale": str(small / "small.yaml"),
        "seeds": [0],
        "data": drawings,
        "output": output,
        "progress": False,
        **more,
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "two" / "results.csv", newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["metric"] not in TIMED]


@pytest.fixture(scope="session")
def finished(small, drawings, tmp_path_factory) -> Path:
    """Two rows and a seed."""
    folder = tmp_path_factory.mktemp("experiments")
    experiment(str(small / "two.yaml"), **options(small, drawings, folder))
    return folder


def test_what_an_experiment_leaves(finished, small, drawings):
    found = {(row["row"], row["task"], row["metric"]): row for row in rows(finished)}
    recall = found["ANNs", "retrieval", "text_to_image R@1"]
    assert float(recall["chance"]) == float(recall["blind"]) == 1 / 8 and recall["n"] == "8"
    accuracy = found["ASH-Nets", "ve", "accuracy"]
    assert accuracy["n"] == "20" and float(accuracy["chance"]) == pytest.approx(1 / 3, abs=1e-4)
    assert 0 <= float(accuracy["value"]) <= 1 and accuracy["seed"] == "0" and accuracy["torch"] and accuracy["device"]
    assert ("ANNs", "pre-training", "loss mvm") not in found and ("ASH-Nets", "pre-training", "loss mvm") in found
    assert float(found["ANNs", "pre-training", "epochs to mlm"]["value"]) == 2, "its own last epoch"
    page = (finished / "two" / "page.md").read_text(encoding="utf-8")
    paper, measured = page.split("## Measured")
    assert "| ANNs | 64.70 | 84.00 |" in paper and "64.70" not in measured
    assert f"| ANNs | {100 * float(recall['value']):.1f} (1) |" in measured
    assert Image.open(finished / "two" / "plot.png").width > 300


def test_finished_runs_are_not_run_again(finished, small, drawings, monkeypatch):
    before = (finished / "two" / "results.csv").read_bytes()
    monkeypatch.setattr(Run, "train", None)
    again = experiment(str(small / "two.yaml"), **options(small, drawings, finished, only=["ANNs"]))
    assert (finished / "two" / "results.csv").read_bytes() == before, "rows that were left out stay"
    assert {row["row"] for row in again["rows"]} == {"ANNs", "ASH-Nets"}
    plan = experiment(str(small / "two.yaml"), **options(small, drawings, finished, dry_run=True))
    assert plan["seconds"] == 0 and {row["status"] for row in plan["rows"]} == {"finished"}


def test_measured_runs_may_be_deleted(finished, small, drawings, tmp_path, monkeypatch):
    """What was measured is enough: on another machine, too. Without one of the files, its runs are needed again."""
    for file in (finished / "runs").glob("*/*/measured-*.json"):
        place = tmp_path / file.relative_to(finished)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    with monkeypatch.context() as nothing_runs:
        nothing_runs.setattr(Run, "train", None)
        experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path))
    assert rows(tmp_path) == rows(finished)
    for file in (tmp_path / "runs").glob("*/*/measured-ve-*.json"):
        file.unlink()
    plan = experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path, only=["ANNs"], dry_run=True))
    assert [row["status"] for row in plan["rows"]] == ["to do", "to do"], "fine-tuning starts from pre-training"


def test_times_of_different_processors_are_not_compared(finished, small, drawings, tmp_path):
    shutil.copytree(finished / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("pretrain", "finetune-*"))
    plain = experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path))
    assert {row["row"] for row in plain["rows"] if row["metric"] == "seconds an epoch"} == {"ANNs", "ASH-Nets"}
    file = next((tmp_path / "runs").glob("*/seed-0/measured-pre-training.json"))
    told = json.loads(file.read_text(encoding="utf-8"))
    told["environment"]["device"] = "another processor"
    file.write_text(json.dumps(told), encoding="utf-8")
    mixed = experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path))
    metrics = {row["metric"] for row in mixed["rows"]}
    assert not metrics & {"seconds an epoch", "hours"} and "memory (MB)" in metrics
    assert "their times are left out" in Path(mixed["page"]).read_text(encoding="utf-8")


def test_the_fastest_epoch_of_a_phase_counts_for_all(finished, small, drawings, tmp_path):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    for file in (tmp_path / "runs").glob("*/seed-0/measured-pre-training.json"):
        file.unlink()
        log = file.parent / "pretrain" / "log.jsonl"
        first, last = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
        ends = (100, 150, 230)  # the first phase took 40 seconds, these epochs 60, 50 and 80
        told = [{**first, "seconds": 40}, *({**last, "epoch": 2 + i, "seconds": end} for i, end in enumerate(ends))]
        log.write_text("".join(json.dumps(one) + "\n" for one in told), encoding="utf-8")
    found = experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path))["rows"]
    assert [float(row["value"]) for row in found if row["metric"] == "seconds an epoch"] == [50, 50]
    hours = [float(row["value"]) for row in found if row["metric"] == "hours"]
    assert hours == [pytest.approx((40 + 3 * 50) / 3600, abs=1e-5)] * 2


def test_a_run_s_recipe_is_that_of_its_command(finished, small, drawings):
    plan = experiment(str(small / "two.yaml"), **options(small, drawings, finished, dry_run=True))
    for row in plan["rows"]:
        words = shlex.split(row["command"])
        overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        run = Path(words[words.index("--output") + 1])
        recipe = load_recipe(recipe_path(words[2 if words[1] == "train" else 3]), overrides)
        assert recipe.to_dict() == yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stop", [3, 6])
def test_a_killed_experiment_ends_with_the_same_file(finished, small, drawings, tmp_path, monkeypatch, stop):
    """Killed in a run of pre-training of the first or of the second row; fine-tuned runs have one step."""
    steps, plain = [], Run._optimize

    def until(self, *arguments) -> None:
        steps.append(self.step)
        if len(steps) == stop:
            raise KeyboardInterrupt
        plain(self, *arguments)

    monkeypatch.setattr(Run, "_optimize", until)
    with pytest.raises(KeyboardInterrupt):
        experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path))
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="interrupted run: continue it with --resume"):
        experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path))
    experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path, resume=True))
    assert rows(tmp_path) == rows(finished)


def test_a_dry_run_writes_nothing_and_tells_time_and_memory(small, drawings, tmp_path):
    output = tmp_path / "out"
    plan = experiment(str(small / "two.yaml"), **options(small, drawings, output, only=["ASH-Nets"], dry_run=True))
    assert not output.exists() and len(plan["rows"]) == 2
    assert plan["seconds"] == pytest.approx(sum(row["seconds"] for row in plan["rows"]))
    assert plan["seconds"] > 0
    assert all(row["bytes"] > 1e6 and row["status"] == "to do" for row in plan["rows"])


def test_missing_data_is_named_before_anything_runs(small, tmp_path):
    with pytest.raises(DataError) as told:
        ashnets.experiment("table-11", scale="paper", data=tmp_path, output=tmp_path / "out")
    for part in ("coco", "vqa", "nlvr2", "snli-ve"):
        assert str(tmp_path / part) in str(told.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="nothing was run"):
        ashnets.experiment("table-11", data=tmp_path / "none", output=tmp_path / "out")


def test_what_cannot_be_is_refused(finished, small, drawings, write_corpus, tmp_path):
    two = str(small / "two.yaml")
    for wrong, message in [
        ({"only": ["ANN"]}, "no row 'ANN'.*Did you mean ANNs"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"jobs": 0}, "at least one"),
        ({"scale": "huge"}, "neither one of lab, paper nor a file"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            experiment(two, **options(small, drawings, tmp_path, **wrong))
    with pytest.raises(ConfigurationError, match=r"no experiment 'table-1'.*There are table-2, table-3"):
        experiment("table-1")
    moved = tmp_path / "moved"
    moved.symlink_to(drawings)
    experiment(two, **options(small, moved, finished, only=["ANNs"]))  # the same place
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"letter\.txt"):
        experiment(two, **options(small, drawings, tmp_path))


def test_a_contact_sheet_shares_the_run(finished, small, drawings):
    """Fig. 4 of the row that is trained already."""
    row = {"name": "ASH-Nets", "changes": {"changes.time_steps": 1}}
    sheet = {"title": "Batches", "plot": "sheet", "rows": [row], "claims": []}
    sheet["measures"] = {"random similarity": None, "similar similarity": None}
    (small / "sheet.yaml").write_text(yaml.safe_dump(sheet))
    before = sorted(path.name for path in (finished / "runs").iterdir())
    found = experiment(str(small / "sheet.yaml"), **options(small, drawings, finished))
    assert sorted(path.name for path in (finished / "runs").iterdir()) == before
    values = {row["metric"]: row["value"] for row in found["rows"] if row["task"] == "sheet"}
    assert values["similar"] >= values["random"]
    assert Image.open(finished / "sheet" / "contact-sheet.png").width > 300


@pytest.mark.slow
def test_two_rows_at_once_give_the_same_file(small, drawings, tmp_path):
    """As one after the other with one thread: sums, and so trained weights, depend on the number of threads."""
    experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path / "two", jobs=2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        experiment(str(small / "two.yaml"), **options(small, drawings, tmp_path / "one"))
    finally:
        torch.set_num_threads(threads)
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_experiment_leaves_no_process_behind(small, drawings, tmp_path):
    words = ["experiment", str(small / "two.yaml"), "--scale", str(small / "small.yaml"), "--seeds", "0"]
    words += ["--data", str(drawings), "--output", str(tmp_path), "--jobs", "2"]
    started = subprocess.Popen([sys.executable, "-m", "ashnets", *words], stderr=subprocess.DEVNULL)
    parent, children = psutil.Process(started.pid), []
    while not children and started.poll() is None:
        time.sleep(0.05)
        children = [one for one in parent.children() if "ashnets.experiments" in one.cmdline()]
    assert children, "two cores run two rows in processes of their own"
    started.kill()
    started.wait()
    assert psutil.wait_procs(children, timeout=120)[1] == []


@pytest.mark.slow
def test_two_processes_of_torchrun_make_one_report(small, drawings, tmp_path):
    words = ["experiment", str(small / "two.yaml"), "--scale", str(small / "small.yaml"), "--seeds", "0"]
    words += ["--only", "ASH-Nets", "--data", str(drawings), "--output", str(tmp_path)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "ashnets"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ashnets.__file__).parents[1])}
    done = subprocess.run([*launch, *words], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| ASH-Nets |") == 1
    assert {row["row"] for row in rows(tmp_path)} == {"ASH-Nets"}
