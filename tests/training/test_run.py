"""Runs from end to end: phases, logs, resumed runs to the bit, faults."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import resource
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ashnets
from ashnets.data.corpus import open_corpus
from ashnets.data.learned import images_learned, read_sketch
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.errors import ConfigurationError, DataError, OutputError, TrainingError
from ashnets.evaluation.evaluating import DataPlace, evaluate_models
from ashnets.evaluation.options import EvaluationOptions
from ashnets.model.sampling import image_key
from ashnets.objectives import NAMES
from ashnets.runs import train
from ashnets.training.checkpoint import checkpoints, tensors_of
from ashnets.training.loader import calibration_batches
from ashnets.training.reading import load_recipe
from ashnets.training.run import Run

EVERYTHING = {
    "queue": 20,
    "momentum": 0.9,
    "distillation": 0.2,
    "ema": 0.9,
    "accumulate": 2,
    "checkpoint_every": 1,
    "changes.hidden_dropout_prob": 0.1,
}
CUT = "warm-up over 1 step, not schedule.warmup_steps=3: a tenth of the run's 16 at most"


def overrides(changes: dict) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def records(run, name="log.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def steps_of(run) -> list[dict]:
    return [record for record in records(run, "steps.jsonl") if "kind" not in record]


def timeless(lines: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in lines]


def assert_same_end(a, b) -> None:
    """The last checkpoints of two runs have the same bits: model, averages, queue, optimizers."""
    last = [checkpoints(run / "checkpoints")[-1] for run in (a, b)]
    assert last[0].name == last[1].name
    files = sorted(path.name for path in last[0].glob("*.safetensors"))
    assert files == sorted(path.name for path in last[1].glob("*.safetensors"))
    for name in files:
        left, right = load_file(last[0] / name), load_file(last[1] / name)
        assert left.keys() == right.keys()
        assert not [key for key in left if not torch.equal(left[key], right[key])], name


@pytest.fixture(scope="module")
def finished(corpus, recipe_data, tmp_path_factory):
    """The small recipe, undisturbed."""
    folder = tmp_path_factory.mktemp("run")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe_data))
    (folder / "run").symlink_to("volume/run")  # which is not there yet
    result = train(path, corpus=corpus, output=folder / "run", progress=False)
    return folder / "run", result


@pytest.fixture(scope="module")
def rich(corpus, recipe_data, tmp_path_factory):
    """Queue, averages, dropout, accumulation and a checkpoint at each step, undisturbed."""
    folder = tmp_path_factory.mktemp("rich")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe_data))
    train(path, corpus=corpus, output=folder / "run", overrides=overrides(EVERYTHING), progress=False)
    return folder / "run", path


def statistics_by_hand(model, pixels, keys, group_size):
    """Name → mean and unbiased variance of what enters each batch norm of the vision encoders in training mode."""
    found = {}

    def note(name, x):
        channels = x.dim() - 3 if x.dim() > 2 else 1
        axes = [d for d in range(x.dim()) if d != channels]
        found[name] = x.double().mean(axes), x.double().var(axes)

    vision = copy.deepcopy(model.ashnets.vision).train()
    for name, module in vision.named_modules():
        if name.startswith("abstract_encoder") and name.endswith(".conv"):  # a norm that is watched runs by other code
            norm = name.removesuffix("conv") + "norm"
            module.register_forward_hook(lambda _, inputs, x, norm=norm: note(norm, x))
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
    collected = vision.collector.rate_norm
    normalize = collected.normalize

    def noted(rates):
        note("collector.rate_norm", rates)
        return normalize(rates)

    collected.normalize = noted
    with torch.no_grad():
        vision(pixels, image_keys=keys, group_size=group_size)
    return found


@pytest.fixture(scope="module")
def short(even_corpus, recipe_data, tmp_path_factory):
    """One step an epoch, two of the concrete phase and one of the spiking one, and the run as it ended."""
    folder = tmp_path_factory.mktemp("short")
    phases = [{**phase, "epochs": epochs} for phase, epochs in zip(recipe_data["phases"], (2, 1), strict=True)]
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**recipe_data, "ema": 0.99, "batch_size": 24, "fused_pairs": 12, "phases": phases}))
    run = Run(load_recipe(path), open_source(even_corpus), folder / "run", progress=False)
    run.train()
    return run


def test_what_is_published_has_statistics_of_its_own_weights(short):
    """24 images are one pass of training: the published statistics are theirs under the averaged weights, by hooks."""
    (batch,) = calibration_batches(short.images, 1024, 0, pin=False)
    published = short.learner.published
    expected = statistics_by_hand(published, *batch.shown())
    vision = published.ashnets.vision
    assert set(expected) == {name for name, module in vision.named_modules() if hasattr(module, "running_var")}
    assert {name.partition(".")[0] for name in expected} == {"concrete_encoder", "abstract_encoder", "collector"}
    for name, (mean, variance) in expected.items():
        norm = vision.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-3, atol=1e-5)


def test_the_average_begins_with_its_phase(short):
    """A phase of one step: its average is the weights after that step, and nothing of the phase before."""
    last = checkpoints(short.folder.path / "checkpoints")[-1]
    average, trained = load_file(last / "ema.safetensors"), load_file(last / "model.safetensors")
    assert [record["phase"] for record in steps_of(short.folder.path)] == ["concrete", "concrete", "spiking"]
    assert int(average["n_averaged"]) == 1
    weights = [name for name in trained if "running" not in name and "tracked" not in name]
    assert weights and all(torch.equal(average[f"module.{name}"], trained[name]) for name in weights)


def test_logged_rates_are_those_of_the_published_model(rich, corpus):
    """The model is read back from its float16 file, and its spikes are counted layer by layer."""
    folder, _ = rich
    logged = {k.removeprefix("rate_"): v for k, v in records(folder)[-1].items() if k.startswith("rate_")}
    assert json.loads((folder / "model" / "training.json").read_text())["firing_rates"] == logged
    model = ashnets.from_pretrained(folder / "model").ashnets
    pairs = Pairs(open_source(corpus), ["valid"], model.config.image_size)
    keys = [image_key(name) for name in pairs.image_ids]
    with torch.no_grad():
        spikes = model.vision.sample(pairs.on_white(range(6)), keys)
        outputs, _ = model.vision.abstract_encoder.run(spikes)
    assert list(outputs) == list(logged)
    for name, fired in outputs.items():
        assert logged[name] == pytest.approx(float(fired.mean()), abs=0.01), name
        assert logged[name] > 0.01, f"{name} fires"
    assert not any(key.startswith("rate_") for record in steps_of(folder) for key in record)
    assert "training_rate_conv1" in steps_of(folder)[-1]


def test_a_warm_up_that_is_cut_is_said(finished):
    """Four epochs of four steps: three steps of warm-up are more than a tenth."""
    folder, _ = finished
    assert [r["text"] for r in records(folder, "steps.jsonl") if r.get("kind") == "note"] == [CUT]


def test_what_a_run_leaves(finished):
    folder, result = finished
    log = records(folder)
    assert [(r["epoch"], r["phase"]) for r in log] == [(1, "concrete"), (2, "concrete"), (3, "spiking"), (4, "spiking")]
    assert [r["pairs_seen"] for r in log] == [27, 54, 81, 108], "every image exactly once an epoch"
    assert result["pairs_seen"] == 108
    assert "stua" not in log[1] and "rate_conv1" not in log[1]
    assert {"itc", "itm", "mlm", "mvm", "stua", "rate_concepts", "summary_ratio"} <= set(log[2])
    assert log[3]["group_similarity"] > log[3]["random_group_similarity"]
    assert log[3]["neighbors"].startswith("exact search over 27")
    found = {path.name for path in folder.iterdir()}
    assert found == {
        "recipe.yaml",
        "environment.json",
        "log.jsonl",
        "steps.jsonl",
        "events",
        "plots",
        "checkpoints",
        "phase-concrete",
        "phase-spiking",
        "validation",
        "model",
    }
    assert {path.stem for path in (folder / "plots").iterdir()} == {
        "losses",
        "learning_rates",
        "firing_rates",
        "summary_ratio",
        "spiking_branch",
        "gradients",
        "validation",
    }
    assert folder.is_symlink() and [path.name for path in folder.parent.glob("volume/*")] == ["run"]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["devices"] == 1 and environment["torch"] == torch.__version__


def test_steps_are_logged_one_by_one(finished):
    """27 images in groups of 4, 8 a step: two full steps, one of two groups, and the last group of 7 by itself."""
    folder, _ = finished
    steps, log = steps_of(folder), records(folder)
    assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
    for epoch in range(1, 5):
        mine = [record for record in steps if record["epoch"] == epoch]
        for name in ("loss", "itc", "itm", "mlm"):
            assert log[epoch - 1][name] == pytest.approx(sum(r[name] for r in mine) / len(mine), abs=2e-5)
    # the warm-up is one step (see CUT), then ×0.1 from the fourth epoch on
    assert {round(r["lr_concrete"], 9) for r in steps if r["epoch"] < 4} == {1e-3}
    assert {round(r["lr_concrete"], 9) for r in steps if r["epoch"] == 4} == {1e-4}
    events = EventAccumulator(str(folder / "events"))
    events.Reload()
    board = events.Scalars("train/loss")
    assert [event.step for event in board] == [record["step"] for record in steps]
    assert [event.value for event in board] == pytest.approx([record["loss"] for record in steps], rel=1e-6)


def test_the_loss_is_the_weighted_sum(finished):
    folder, _ = finished
    weights = {"itc": 1.0, "itm": 0.5, "mlm": 0.25, "mvm": 0.1, "stua": 0.5}
    for record in steps_of(folder):
        assert record["loss"] == pytest.approx(sum(w * record.get(name, 0) for name, w in weights.items()), abs=1e-5)


@pytest.mark.parametrize(
    "names",
    [
        ("itm", "mlm", "mvm"),
        ("itm", "mlm", "mvm", "itc"),
        ("itm", "mlm", "mvm", "itc", "stua"),
        ("stua",),
        ("distill",),
    ],
)
def test_objectives_are_switched_separately(corpus, recipe, tmp_path, names):
    """Fig. 5: Base, Base + ITC, Base + ITC + STUA; and one alone."""
    objectives = json.dumps(dict.fromkeys(names, 1.0))
    train(
        recipe,
        corpus=corpus,
        output=tmp_path / "run",
        progress=False,
        overrides=["phases.0.epochs=1", "phases.1.epochs=1", f"phases.1.objectives={objectives}"],
    )
    last = records(tmp_path / "run")[-1]
    assert {name for name in NAMES if name in last} == set(names)


def test_concrete_phase_leaves_the_spiking_branch_alone(finished):
    folder, _ = finished
    before = load_file(folder / "phase-concrete" / "model.safetensors")
    after = load_file(folder / "phase-spiking" / "model.safetensors")
    gamma = "ashnets.vision.abstract_encoder.layers.conv1.norm.weight"
    assert torch.equal(before[gamma], torch.ones_like(before[gamma])), "γ still at αθ"
    for key in (gamma, "ashnets.vision.collector.concepts", "ashnets.vision.summary_ratio.phi.weight"):
        assert not torch.equal(before[key], after[key]), key


def test_a_frozen_part_stays(corpus, recipe, tmp_path):
    train(
        recipe,
        corpus=corpus,
        output=tmp_path / "run",
        progress=False,
        overrides=["phases.0.epochs=1", "phases.1.epochs=1", "phases.1.frozen=[concrete]"],
    )
    before = load_file(tmp_path / "run" / "phase-concrete" / "model.safetensors")
    after = load_file(tmp_path / "run" / "phase-spiking" / "model.safetensors")
    frozen = [k for k in before if ".concrete_encoder." in k]
    assert any("running_var" in k for k in frozen) and any("tracked" in k for k in frozen)
    assert not [k for k in frozen if not torch.equal(before[k], after[k])], "neither weights nor statistics"
    assert not torch.equal(before["text_projection.weight"], after["text_projection.weight"])


def test_the_published_model_is_the_trained_one(finished):
    folder, _ = finished
    stored = load_file(folder / "model" / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    trained = load_file(checkpoints(folder / "checkpoints")[-1] / "model.safetensors")
    model = ashnets.from_pretrained(folder / "model")
    assert not model.training
    for name, tensor in tensors_of(model).items():
        assert torch.equal(tensor, trained[name].half().float() if tensor.is_floating_point() else trained[name]), name
    record = json.loads((folder / "model" / "training.json").read_text())
    assert (record["seed"], record["pairs_seen"], record["model"]) == (0, 108, "ashnets-tiny")
    assert (folder / "model" / "log.jsonl").read_text() == (folder / "log.jsonl").read_text()


def test_with_an_average_that_is_what_is_published(rich):
    folder, _ = rich
    stored = load_file(folder / "model" / "model.safetensors")
    last = checkpoints(folder / "checkpoints")[-1]
    average, trained = load_file(last / "ema.safetensors"), load_file(last / "model.safetensors")
    key = "image_projection.weight"
    assert torch.equal(stored[key], average[f"module.{key}"].half())
    assert not torch.equal(average[f"module.{key}"], trained[key])


def test_the_queue_holds_the_last_pairs(rich, corpus):
    """Pair n lies at place n mod 20; the checkpoint inside the last epoch names the order of its 27 images."""
    folder, _ = rich
    inside, last = checkpoints(folder / "checkpoints")
    queue, order = load_file(last / "queue.safetensors"), load_file(inside / "order.safetensors")["indices"].tolist()
    assert int(queue["written"]) == 108, "each pair of each epoch went in"
    assert sorted(order) == list(range(27))
    samples = Pairs(open_source(corpus), ["train"], 64).samples.tolist()
    assert len(set(samples)) == 27
    expected = {(81 + n) % 20: samples[index] for n, index in enumerate(order)}
    assert queue["samples"].tolist() == [expected[place] for place in range(20)]
    for name in ("image", "text"):
        assert queue[name].norm(dim=1) == pytest.approx(1, abs=1e-5), name


def test_evaluation_of_the_published_model(finished, corpus):
    folder, _ = finished
    options = EvaluationOptions(splits=("valid",), candidates=3, ablate=True, progress=False)
    report = evaluate_models([folder / "model"], "retrieval", DataPlace(corpus), options)
    entries = report.to_dict()["models"][str(folder / "model")]["splits"]["valid"]
    assert [(e["branch"], e["ranking"]) for e in entries] == [
        (branch, ranking)
        for branch in ("both", "concrete alone", "another image's spikes", "spikes alone")
        for ranking in ("ITC", "ITC, then ITM on the best 3", "ITC, then ITC + ITM on the best 3")
    ]
    rows = report.as_rows()
    assert len(rows) == 24
    for row in rows:
        assert (row["model"], row["recipe"], row["seed"], row["images"]) == ("ashnets-tiny", "small", 0, 6)
        assert row["R@1"] in [round(i / 6, 4) for i in range(7)]
        assert row["R@10"] == 1.0, "six images: the first ten hold all"
        assert row["chance R@1"] == pytest.approx(1 / 6, abs=1e-5)


def test_the_table_says_which_images_the_model_learned_from(finished, corpus, tmp_path):
    """In table and JSON, of the run's own corpus and of another folder that shares a part of it."""
    folder, _ = finished
    record = json.loads((folder / "model" / "training.json").read_text())
    assert record["learned_from"] == {"name": "corpus", "splits": ["train"], "images": 27}
    options = EvaluationOptions(splits=("valid", "train"), progress=False)
    report = evaluate_models([folder / "model"], "retrieval", DataPlace(corpus), options)
    (model,) = report.to_dict()["models"].values()
    assert model["splits"]["train"][0]["trained on"] == {"images": 27, "of": 27}
    assert "trained on" not in model["splits"]["valid"][0]
    assert [row["trained on"] for row in report.as_rows()] == ["0 of 6 images"] * 2 + ["27 of 27 images"] * 2
    assert report.remarks() == [f"trained on: {folder / 'model'} learned from 27 of these 27 images of train"]
    digest = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert {row["weights_sha256"] for row in report.as_rows()} == {digest}
    shared = pq.read_table(corpus / "train.parquet").slice(20)
    pq.write_table(pa.concat_tables([shared, pq.read_table(corpus / "valid.parquet")]), tmp_path / "test.parquet")
    known = read_sketch(folder / "model")
    pairs = Pairs(open_source(tmp_path), ["test"], 16)
    assert (images_learned(known, pairs), images_learned(known, pairs, [0, 7, 8]), len(pairs)) == (7, 1, 13)
    (tmp_path / "learned_from.json").write_text('{"hashes": "zz"}')
    with pytest.raises(DataError, match=r"learned_from\.json is damaged"):
        read_sketch(tmp_path)


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_stopped_at_a_step_then_resumed(rich, corpus, tmp_path, monkeypatch, stop):
    """Inside and at the end of epochs of both phases; every file of the last checkpoint has the same bits."""
    folder, recipe = rich
    options = {"corpus": corpus, "output": tmp_path / "run", "overrides": overrides(EVERYTHING), "progress": False}
    plain = Run._optimize

    def until(self, *args) -> None:
        if self.step == stop:
            raise KeyboardInterrupt
        plain(self, *args)

    monkeypatch.setattr(Run, "_optimize", until)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, **options)
    monkeypatch.undo()
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")][-1] == f"step-{stop:08d}"
    train(recipe, resume=True, **options)
    assert_same_end(tmp_path / "run", folder)
    assert timeless(steps_of(tmp_path / "run")) == timeless(steps_of(folder)), "none twice, each as undisturbed"
    assert timeless(records(tmp_path / "run")) == timeless(records(folder))


def test_resumed_before_the_first_checkpoint_and_after_the_last(finished, corpus, recipe, tmp_path, monkeypatch):
    folder, _ = finished
    options = {"corpus": corpus, "output": tmp_path / "run", "progress": False}

    def stop(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_optimize", stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, **options)
    monkeypatch.undo()
    monkeypatch.setattr(Run, "_finish", stop)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, resume=True, **options)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "model").exists()
    train(recipe, resume=True, **options)
    assert_same_end(tmp_path / "run", folder)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (tmp_path / "run", folder)]
    assert weights[0] == weights[1]


def test_workers_recomputation_and_rare_logs_change_nothing(finished, corpus, recipe, tmp_path):
    """Two processes that read, activation checkpointing and a line for each third step: the recipe says other things,
    the weights are the same."""
    folder, _ = finished
    changes = {"workers": 2, "activation_checkpointing": True, "log_every": 3}
    train(recipe, corpus=corpus, output=tmp_path / "run", overrides=overrides(changes), progress=False)
    assert_same_end(tmp_path / "run", folder)
    assert len(steps_of(tmp_path / "run")) < len(steps_of(folder))
    for a, b in zip(records(tmp_path / "run"), records(folder), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-5)


def test_memory_saving_trains_alike(finished, corpus, recipe, tmp_path):
    """Its sums are taken piece by piece, so that last bits differ, and in time whole spikes."""
    folder, _ = finished
    train(recipe, corpus=corpus, output=tmp_path / "run", overrides=["memory_saving=true"], progress=False)
    for a, b in zip(records(tmp_path / "run"), records(folder), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)


def test_what_saves_memory_is_switched_on(corpus, recipe, tmp_path):
    """A dry run counts the tensors that autograd keeps, and the operations of a second forward pass."""

    def spiking(*changes: str) -> dict:
        changes = "changes.spiking_channels=[16, 16, 16, 16]", "changes.time_steps=8", *changes
        options = {"corpus": corpus, "output": tmp_path / "run", "progress": False, "dry_run": True}
        return train(recipe, overrides=list(changes), **options)["phases"]["spiking"]

    plain, packed, again = spiking(), spiking("memory_saving=true"), spiking("activation_checkpointing=true")
    for saving in (packed, again):
        assert saving["bytes_activations"] < 0.8 * plain["bytes_activations"]
    assert again["flops_a_step"] > 1.2 * plain["flops_a_step"]


def test_bf16_runs(corpus, recipe, tmp_path):
    changes = ["precision=bf16", "phases.0.epochs=1", "phases.1.epochs=1"]
    run = Run(load_recipe(recipe, changes), open_source(corpus), tmp_path / "run", progress=False)
    model, found = run.learner.model, set()
    for layer in (model.text_projection, model.image_projection, model.itm):
        layer.register_forward_hook(lambda own, _, product: found.add(product.dtype) if own.training else None)
    run.train()
    assert found == {torch.bfloat16}
    assert all(math.isfinite(record["loss"]) for record in records(tmp_path / "run"))


def test_two_variants_share_the_concrete_phase(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    result = train(
        recipe,
        corpus=corpus,
        output=tmp_path / "ann",
        progress=False,
        overrides=[
            "changes.summary_ratio=ann",
            f"start={folder / 'phase-concrete'}",
            "phases.1.objectives={itc: 1.0, itm: 0.5, mlm: 0.25}",
        ],
    )
    assert [r["epoch"] for r in records(tmp_path / "ann")] == [3, 4]
    assert any("end of phase 'concrete'" in origin for origin in result["initialized"])


def test_a_start_after_which_nothing_is_trained_is_refused(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    start = [f"start={folder / 'phase-spiking'}"]
    with pytest.raises(TrainingError, match=r"phase-spiking is the end of phase 'spiking'.* give the end of concrete"):
        train(recipe, corpus=corpus, output=tmp_path / "nothing", overrides=start, progress=False)


def test_stdp_comes_first_and_changes_the_first_layers(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    train(
        recipe,
        corpus=corpus,
        output=tmp_path / "run",
        progress=False,
        overrides=["stdp={layers: 1, images: 24, batch: 8}", "phases.1.epochs=1"],
    )
    report = json.loads((tmp_path / "run" / "stdp.json").read_text())
    assert list(report) == ["conv1"] and report["conv1"]["relative_change"] > 0.001
    assert report["conv1"]["firing_rate_before"] != report["conv1"]["firing_rate_after"]
    # the concrete phase leaves the spiking branch as the stage left it
    with_it = load_file(tmp_path / "run" / "phase-concrete" / "model.safetensors")
    without = load_file(folder / "phase-concrete" / "model.safetensors")
    for layer, same in (("conv1", False), ("conv2", True)):
        key = f"ashnets.vision.abstract_encoder.layers.{layer}.conv.weight"
        assert torch.equal(with_it[key], without[key]) == same


def test_faults_are_refused(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    with pytest.raises(TrainingError, match="already contains a run"):
        train(recipe, corpus=corpus, output=folder, progress=False)
    shutil.copytree(folder / "model", tmp_path / "other" / "model")
    own = [tmp_path / "own" / "step-by-step" / "thesis.txt", tmp_path / "own" / "checkpoints" / "step-5000" / "a.bin"]
    for path in own:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    with pytest.raises(TrainingError, match=r"step-5000 was not written by a run: move it away"):
        train(recipe, corpus=corpus, output=tmp_path / "own", progress=False)
    assert all(path.read_text() == "mine" for path in own)
    with pytest.raises(OutputError, match="model is there already"):  # of a run whose other files were removed, say
        train(recipe, corpus=corpus, output=tmp_path / "other", progress=False)
    with pytest.raises(TrainingError, match="no run to resume"):
        train(recipe, corpus=corpus, output=tmp_path / "none", resume=True, progress=False)
    with pytest.raises(TrainingError, match="no phase checkpoint"):
        train(recipe, corpus=corpus, output=tmp_path / "x", overrides=["start=/nonexistent"], progress=False)


def test_objectives_without_a_head_are_refused_at_the_start(corpus, recipe, tmp_path):
    options = {"corpus": corpus, "output": tmp_path / "run", "progress": False}
    with pytest.raises(ConfigurationError, match=r"phases.spiking.objectives: mvm, stua need the spiking branch"):
        train(recipe, overrides=["changes.summary_ratio=ann"], **options)
    with pytest.raises(ConfigurationError, match=r"objectives: mvm need"):
        train(recipe, overrides=["changes.collector=false"], **options)
    snn = ["changes.summary_ratio=snn", "phases.0.concrete_only=false", "phases.1.objectives={itc: 1.0, distill: 1.0}"]
    with pytest.raises(ConfigurationError, match=r"phases.spiking.objectives: distill need .* the concrete branch"):
        train(recipe, overrides=snn, **options)
    snn = ["changes.summary_ratio=snn", "phases.0.concrete_only=false", "remember_features=true", "views=1"]
    snn += [f"phases.{i}.{key}" for i in (0, 1) for key in ("frozen=[backbone]", "objectives={itc: 1.0}")]
    with pytest.raises(ConfigurationError, match=r"remember_features: .* no concrete branch"):
        train(recipe, overrides=snn, **options)
    integers = ["changes.precision=int8", "stdp={layers: 1}"]
    with pytest.raises(ConfigurationError, match="precision='int8'"):
        train(recipe, overrides=integers, **options)
    ann = ["changes.summary_ratio=ann", "phases.1.objectives={itc: 1.0}", "stdp={layers: 1}"]
    with pytest.raises(ConfigurationError, match="has no spiking layers to train"):
        train(recipe, overrides=ann, **options)
    assert not (tmp_path / "run").exists()


def test_other_images_are_refused(finished, corpus, even_corpus, recipe):
    folder, _ = finished
    with pytest.raises(TrainingError, match="was made on other images: give the same --corpus"):
        train(recipe, corpus=even_corpus, output=folder, resume=True, progress=False)


def test_another_environment_is_said(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    place = tmp_path / "run" / "environment.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "torch": "1.0"}))
    train(recipe, corpus=corpus, output=tmp_path / "run", resume=True, progress=False)
    texts = [r["text"] for r in records(tmp_path / "run", "steps.jsonl") if r.get("kind") == "warning"]
    assert texts == [
        "resumed in another environment, results may differ in the last bits: "
        f"torch: was '1.0', is {torch.__version__!r}"
    ]


def test_a_resumed_run_does_not_need_what_it_started_from(finished, corpus, recipe, tmp_path, monkeypatch):
    folder, _ = finished
    shutil.copytree(folder / "phase-concrete", tmp_path / "phase-concrete")
    options = {
        "corpus": corpus,
        "output": tmp_path / "run",
        "progress": False,
        "overrides": [f"start={tmp_path / 'phase-concrete'}"],
    }
    plain = Run._epoch

    def until(self, epoch, phase) -> dict:
        if epoch == 3:
            raise KeyboardInterrupt
        return plain(self, epoch, phase)

    monkeypatch.setattr(Run, "_epoch", until)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, **options)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "phase-concrete")
    result = train(recipe, resume=True, **options)
    assert any("end of phase 'concrete'" in origin for origin in result["initialized"])
    assert [record["epoch"] for record in records(tmp_path / "run")] == [3, 4]


def test_another_recipe_is_refused_with_a_diff(finished, corpus, recipe):
    folder, _ = finished
    changes = ["seed=1", "phases.1.objectives.stua=0.7", "optimizers.spiking.kind=adamw"]
    with pytest.raises(TrainingError) as error:
        train(recipe, corpus=corpus, output=folder, resume=True, overrides=changes, progress=False)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert lines == [
        "phases.1.objectives.stua: was 0.5, is 0.7",
        "optimizers.spiking.kind: was 'sgd', is 'adamw'",
        "seed: was 0, is 1",
    ]


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(finished, corpus, recipe, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    options = {"corpus": corpus, "output": tmp_path / "run", "resume": True, "progress": False}
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=f"{newest.name}: the checkpoint cannot be read .* delete this folder"):
        train(recipe, **options)
    shutil.rmtree(newest)
    train(recipe, **options)
    assert_same_end(tmp_path / "run", folder)


def test_a_loss_that_is_not_finite_stops_the_run(corpus, recipe, tmp_path):
    with pytest.raises(TrainingError, match="became infinite or NaN at step"):
        train(
            recipe,
            corpus=corpus,
            output=tmp_path / "run",
            progress=False,
            overrides=["optimizers.concrete.lr=1e30", "schedule.warmup_steps=0"],
        )
    bad = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert len(bad["image_ids"]) in (7, 8) and bad["not_finite"]


@pytest.fixture
def damaged_corpus(corpus, write_corpus, tmp_path):
    """The small corpus with two training images and a validation image cut short."""
    opened = open_corpus(corpus)
    rows = {name: list(opened.split(name)) for name in ("train", "valid")}
    for name, place in (("train", 3), ("train", 20), ("valid", 1)):
        rows[name][place]["image"] = rows[name][place]["image"][:40]
    lost = [rows["train"][3]["image_id"], rows["train"][20]["image_id"], rows["valid"][1]["image_id"]]
    return write_corpus(tmp_path / "damaged", rows), lost


def test_unreadable_images_are_counted_named_and_left_out(damaged_corpus, recipe, tmp_path):
    folder, lost = damaged_corpus
    train(recipe, corpus=folder, output=tmp_path / "run", progress=False)
    warnings = [r for r in records(tmp_path / "run", "steps.jsonl") if r.get("kind") == "warning"]
    assert sorted(r["image"] for r in warnings) == sorted(lost), "each once"
    assert all("left out" in r["text"] and r["image"] in r["text"] for r in warnings)
    # in the first epoch neighbors stand in; from the second on 25 images are shown
    assert [r["pairs_seen"] for r in records(tmp_path / "run")] == [27, 52, 77, 102]
    state = json.loads((checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json").read_text())
    assert sorted(state["skipped"]) == sorted(lost)


def test_learning_rates_follow_the_epochs_where_images_are_lost(corpus, write_corpus, recipe, tmp_path):
    """25 images are four steps of eight, 24 are three: a half cosine over four epochs, and a warm-up of phase 2."""
    opened = open_corpus(corpus)
    rows = {name: list(opened.split(name)) for name in ("train", "valid")}
    rows["train"] = rows["train"][:25]
    rows["train"][3]["image"] = rows["train"][3]["image"][:40]
    schedule = ["schedule.kind=cosine", "schedule.warmup_steps=0", "schedule.phase_warmup_steps=2"]
    only = ["phases.0.objectives={itc: 1.0}", "phases.1.objectives={itc: 1.0}"]
    damaged = write_corpus(tmp_path / "damaged", rows)
    train(recipe, corpus=damaged, output=tmp_path / "run", overrides=[*schedule, *only], progress=False)
    found = [(record["epoch"], record["lr_transformer"]) for record in steps_of(tmp_path / "run")]
    places = [n / 4 for n in range(4)] + [epoch + n / 3 for epoch in (1, 2, 3) for n in range(3)]
    warm = {2: 0.5, 2 + 1 / 3: (4 / 3 + 1) / 2}
    expected = [2e-4 * 0.5 * (1 + math.cos(math.pi * at / 4)) * min(1, warm.get(at, 1)) for at in places]
    assert [epoch for epoch, _ in found] == [int(at) + 1 for at in places]
    assert [rate for _, rate in found] == pytest.approx(expected)


def test_too_many_unreadable_images_stop_the_run(damaged_corpus, recipe, tmp_path):
    folder, _ = damaged_corpus
    with pytest.raises(DataError, match=r"3 images cannot be read, more than max_skipped=1: .*ashnets data check"):
        train(recipe, corpus=folder, output=tmp_path / "run", overrides=["max_skipped=1"], progress=False)


def test_a_silent_layer_is_warned_about_by_name(corpus, recipe, tmp_path):
    """γ starts at αθ: at α = 0.01 no neuron reaches its threshold."""
    train(
        recipe,
        corpus=corpus,
        output=tmp_path / "run",
        progress=False,
        overrides=["changes.tdbn_alpha=0.01", "phases.0.epochs=1", "phases.1.epochs=1"],
    )
    texts = [r["text"] for r in records(tmp_path / "run", "steps.jsonl") if r.get("kind") == "warning"]
    assert any(text.startswith("spiking layer conv1 is silent") for text in texts)


def test_a_full_disk_leaves_the_last_good_checkpoint(finished, corpus, recipe, tmp_path):
    """No file may grow beyond 30 kB from the third epoch on: the run ends with a message, and goes on when it may."""
    folder, _ = finished
    code = (
        "import sys, resource\n"
        "from ashnets.cli import main\n"
        "from ashnets.training.run import Run\n"
        "epoch = Run._epoch\n"
        "def limited(self, number, phase):\n"
        "    if number == 2:\n"
        "        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))\n"
        "    return epoch(self, number, phase)\n"
        "Run._epoch = limited\n"
        "sys.exit(main())\n"
    )
    command = ["train", str(recipe), "--corpus", str(corpus), "--output", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=200)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY, "this process is not limited"
    assert done.returncode == TrainingError.exit_code, done.stderr
    assert "could not be written" in done.stderr and "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob(".*.part"))
    left = checkpoints(tmp_path / "run" / "checkpoints")
    assert json.loads((left[-1] / "state.json").read_text())["epoch"] == 2
    train(recipe, corpus=corpus, output=tmp_path / "run", resume=True, progress=False)
    assert_same_end(tmp_path / "run", folder)


def test_dry_run_measures_and_writes_nothing(corpus, recipe, tmp_path):
    plan = train(
        recipe, corpus=corpus, output=tmp_path / "run", dry_run=True, progress=False, overrides=["queue=16", "ema=0.9"]
    )
    assert (plan["images"], plan["epochs"], plan["devices"]) == (27, 4, 1)
    assert plan["warmup_steps"] == 1 and plan["notes"] == [CUT]
    concrete, spiking = plan["phases"]["concrete"], plan["phases"]["spiking"]
    assert concrete["parameters"] == spiking["parameters"] > concrete["parameters_trainable"]
    assert spiking["flops_a_step"] > concrete["flops_a_step"] > 0
    assert spiking["bytes_activations"] > concrete["bytes_activations"] > 0
    assert concrete["bytes_copies"] == 2 * concrete["bytes_weights"]
    assert concrete["bytes_queues"] == 16 * (256 * 4 * 2 + 8) + 8
    assert spiking["seconds_run"] == pytest.approx(spiking["seconds_a_step"] * 2 * plan["steps_per_epoch"])
    assert not (tmp_path / "run").exists()
