"""Runs from end to end: both phases, resumed runs to the bit, kills, faults."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ashnets
from ashnets.errors import TrainingError
from ashnets.training import checkpoint
from ashnets.training.evaluate import as_rows, evaluate_retrieval
from ashnets.training.run import train


@pytest.fixture(scope="module")
def finished(corpus, recipe_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe_data))
    result = train(path, corpus=corpus, output=folder / "run", progress=False)
    return folder / "run", result


def same_weights(a, b) -> None:
    left, right = load_file(a), load_file(b)
    assert left.keys() == right.keys()
    different = [k for k in left if not torch.equal(left[k], right[k])]
    assert not different


def test_log_and_checkpoints(finished):
    folder, result = finished
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(r["epoch"], r["phase"]) for r in log] == [(1, "concrete"), (2, "concrete"), (3, "spiking"), (4, "spiking")]
    assert [r["pairs_seen"] for r in log] == [27, 54, 81, 108], "every picture exactly once an epoch"
    assert result["pairs_seen"] == 108
    assert "stua" not in log[1] and "rate_conv1" not in log[1]
    assert {"itc", "itm", "mlm", "mvm", "stua", "rate_concepts", "summary_ratio"} <= set(log[2])
    assert log[3]["group_similarity"] > log[3]["random_group_similarity"]
    assert not list(folder.rglob("*.partial")) and not list(folder.rglob("*.old"))


def test_concrete_phase_leaves_the_spiking_branch_alone(finished):
    folder, _ = finished
    before = load_file(folder / "phase-concrete" / "model.safetensors")
    after = load_file(folder / "phase-spiking" / "model.safetensors")
    gamma = "ashnets.vision.abstract_encoder.layers.conv1.norm.weight"
    assert torch.equal(before[gamma], torch.ones_like(before[gamma])), "γ still at αθ"
    for key in (gamma, "ashnets.vision.collector.concepts", "ashnets.vision.summary_ratio.phi.weight"):
        assert not torch.equal(before[key], after[key]), key


def test_the_published_model_is_the_trained_one(finished, corpus):
    folder, _ = finished
    stored = load_file(folder / "model" / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    trained = load_file(folder / "checkpoint" / "model.safetensors")
    model = ashnets.from_pretrained(folder / "model")
    assert not model.training
    for name, tensor in checkpoint.tensors_of(model).items():
        assert torch.equal(tensor, trained[name].half().float() if tensor.is_floating_point() else trained[name]), name
    record = json.loads((folder / "model" / "training.json").read_text())
    assert (record["seed"], record["pairs_seen"], record["model"]) == (0, 108, "ashnets-tiny")
    assert (folder / "model" / "log.jsonl").read_text() == (folder / "log.jsonl").read_text()


def test_evaluation_of_the_published_model(finished, corpus):
    folder, _ = finished
    report = evaluate_retrieval([folder / "model"], corpus, ["valid"], rerank_top=3, ablate=True, progress=False)
    entries = report["models"][str(folder / "model")]["splits"]["valid"]
    assert [(e["branch"], e["ranking"]) for e in entries] == [
        ("both", "ITC"), ("both", "ITC, then ITM on the best 3"),
        ("concrete alone", "ITC"), ("concrete alone", "ITC, then ITM on the best 3"),
    ]  # fmt: skip
    rows = as_rows(report)
    assert len(rows) == 8
    for row in rows:
        assert (row["model"], row["recipe"], row["seed"], row["pictures"]) == ("ashnets-tiny", "small", 0, 6)
        assert row["R@1"] in [round(i / 6, 4) for i in range(7)]
        assert row["R@10"] == 1.0, "six pictures: the first ten hold all"
        assert row["chance R@1"] == pytest.approx(1 / 6, abs=1e-5)


@pytest.mark.parametrize("epochs", [1, 3])
def test_sigkill_then_resume(finished, corpus, recipe, tmp_path, epochs):
    """Killed while an epoch runs (1: inside the concrete phase, 3: inside the spiking one), then resumed."""
    folder, _ = finished
    ran = tmp_path / "run"
    code = (
        "import sys; from ashnets.training.run import train; "
        "train(sys.argv[1], corpus=sys.argv[2], output=sys.argv[3], progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(recipe), str(corpus), str(ran)])
    log, deadline = ran / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= epochs and (ran / "checkpoint").exists()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(recipe, corpus=corpus, output=ran, resume=True, progress=False)
    same_weights(ran / "checkpoint" / "model.safetensors", folder / "checkpoint" / "model.safetensors")
    epochs_logged = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert epochs_logged == [1, 2, 3, 4], "no epoch is logged twice"


def test_killed_between_the_renames_the_old_checkpoint_is_found(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "checkpoint", tmp_path / "checkpoint.old")
    assert checkpoint.find_checkpoint(tmp_path / "checkpoint") == tmp_path / "checkpoint.old"


def test_two_variants_share_the_concrete_phase(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    result = train(
        recipe, corpus=corpus, output=tmp_path / "ann", progress=False,
        overrides=["changes.summary_ratio=ann", f"start={folder / 'phase-concrete'}",
                   "phases.1.objectives={itc: 1.0, itm: 0.5, mlm: 0.25}"],
    )  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "ann" / "log.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in log] == [3, 4]
    assert any("end of phase 'concrete'" in origin for origin in result["initialised"])


def test_faults_are_refused(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    with pytest.raises(TrainingError, match="already holds a run"):
        train(recipe, corpus=corpus, output=folder, progress=False)
    with pytest.raises(TrainingError, match="no checkpoint to resume"):
        train(recipe, corpus=corpus, output=tmp_path / "none", resume=True, progress=False)
    with pytest.raises(TrainingError, match=r"another recipe: seed: was 0, is 1"):
        train(recipe, corpus=corpus, output=folder, resume=True, overrides=["seed=1"], progress=False)
    with pytest.raises(TrainingError, match="no phase checkpoint"):
        train(recipe, corpus=corpus, output=tmp_path / "x", overrides=["start=/nonexistent"], progress=False)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    weights = damaged / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="cannot be read"):
        train(recipe, corpus=corpus, output=damaged, resume=True, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run(corpus, recipe, tmp_path):
    with pytest.raises(TrainingError, match="became infinite or no number at step"):
        train(
            recipe, corpus=corpus, output=tmp_path / "run", progress=False,
            overrides=["optimisers.concrete.lr=1e30", "schedule.warmup_steps=0"],
        )  # fmt: skip
    bad = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert len(bad["image_ids"]) in (7, 8)


def test_dry_run_writes_nothing(corpus, recipe, tmp_path):
    plan = train(recipe, corpus=corpus, output=tmp_path / "run", dry_run=True, progress=False)
    assert (plan["pictures"], plan["epochs"]) == (27, 4)
    assert not (tmp_path / "run").exists()
