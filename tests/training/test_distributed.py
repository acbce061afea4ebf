"""Two processes over gloo against one: gathers, means, norms, and whole runs."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ashnets.data.sources.opening import open_source
from ashnets.runs import train
from ashnets.training.reading import load_recipe
from ashnets.training.run import Run

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("on_two_ranks", HERE / "on_two_ranks.py")
on_two_ranks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(on_two_ranks)


def torchrun(*command: str, ranks: int = 2) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), *command]
    return subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(str(HERE / "on_two_ranks.py"), str(folder))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_gather_joins_uneven_parts_and_their_gradients(found):
    rows, _ = on_two_ranks.batch()
    for part in found:
        torch.testing.assert_close(torch.tensor(part["gathered"]), rows)
    gradient = torch.tensor(found[0]["gradient"] + found[1]["gradient"])
    assert torch.equal(gradient, torch.arange(8.0).unsqueeze(1).expand(-1, 4) * 11)


def test_paddings_shares_and_means_by_hand(found):
    assert [len(part["padded"][0]) for part in found] == [5, 5]
    assert found[0]["padded"][0] == [1, 1, 1, 0, 0]
    # means over 3 and 1 items weigh 3·2/4 and 1·2/4, so that their mean is that over all 4
    assert [part["shares"] for part in found] == [[1.5, 0.0], [0.5, 0.0]]
    assert [part["mean"] for part in found] == [[1.5], [1.5]]


def test_all_ranks_take_the_first_ones_precision(found):
    assert [part["precision"] for part in found] == ["bf16", "bf16"]


def test_gradient_gauges_are_the_norm_of_the_mean_gradient(found):
    """Of 0.5·Σ x·W, both rows of W have the gradient 0.5·Σ x, which ranks average; the mean of two norms is another."""
    rows, _ = on_two_ranks.batch()
    own = [0.5 * math.sqrt(2) * float(part.sum(0).norm()) for part in rows.split(on_two_ranks.SIZES)]
    expected = 0.25 * math.sqrt(2) * float(rows.sum(0).norm())
    assert expected < 0.9 * sum(own) / 2
    assert [part["norms"] for part in found] == [{"grad_itc_spiking": pytest.approx(expected, rel=1e-5)}] * 2


@pytest.mark.parametrize("name", ["plain", "threshold"])
def test_norms_take_their_statistics_over_all_ranks(found, name):
    """torch's own norm on the whole batch, in one process, is the oracle."""
    _, maps = on_two_ranks.batch()
    norm = on_two_ranks.norms()[0 if name == "plain" else 1]
    y, grad = on_two_ranks.through(norm, maps[0] if name == "plain" else maps)
    axis = 0 if name == "plain" else 1
    parts = [part[name] for part in found]
    for key, expected in (("y", y), ("grad", grad)):
        together = torch.cat([torch.tensor(part[key]) for part in parts], axis)
        torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)
    for key, expected in (("weight", norm.weight.grad), ("bias", norm.bias.grad)):
        torch.testing.assert_close(sum(torch.tensor(part[key]) for part in parts), expected, rtol=1e-4, atol=1e-3)
    for part in parts:
        torch.testing.assert_close(torch.tensor(part["mean"]), norm.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.tensor(part["variance"]), norm.running_var, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def small_steps(recipe_data, tmp_path_factory) -> Path:
    """A recipe of SGD with small rates: Adam, or a large rate, makes much of a last bit.

    The spiking branch trains for an epoch of random groups, which are the same for any number of processes, then for
    one of similar groups, which a last bit can change.
    """
    sgd = {part: {"kind": "sgd", "lr": 1.0e-3} for part in ("transformer", "concrete", "spiking", "collector")}
    concrete, similar = recipe_data["phases"]
    spiking = {**similar, "name": "random", "epochs": 1, "grouping": "random"}
    changes = {
        "phases": [concrete, spiking, {**similar, "epochs": 1}],
        "queue": 24,
        "momentum": 0.9,
        "distillation": 0.3,
        "ema": 0.9,
        "accumulate": 2,
        "optimizers": sgd,
    }
    recipe = tmp_path_factory.mktemp("steps") / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**recipe_data, **changes}))
    return recipe


@pytest.fixture(scope="module")
def both(even_corpus, small_steps, tmp_path_factory) -> tuple[Path, Path]:
    """The same run by one process and by two with half the batch each."""
    folder = tmp_path_factory.mktemp("both")
    train(small_steps, corpus=even_corpus, output=folder / "one", progress=False)
    done = torchrun("-m", "ashnets", "train", str(small_steps), "--corpus", str(even_corpus), "-o", str(folder / "two"))
    assert done.returncode == 0, done.stderr
    return folder / "one", folder / "two"


def test_two_processes_give_the_losses_of_one(both):
    """24 images, φ = 4, 8 pairs a pass: every pass is full. Every objective, queue, distillation and norm agrees.

    A last bit can flip a spike, so the spiking phase has a greater tolerance.
    """
    logs = ([json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()] for run in both)
    one, two = ([record for record in log if "kind" not in record] for log in logs)
    assert [record["step"] for record in one] == [record["step"] for record in two] == list(range(1, 9))
    for a, b in zip(one, two, strict=True):
        assert a["pairs_seen"] == b["pairs_seen"]
        names = ["loss", "itc", "itm", "mlm", "tau", "itm_accuracy"]
        if a["phase"] != "concrete":
            names += ["mvm", "stua", "summary_ratio", "training_rate_conv1", "training_rate_concepts"]
        tolerance = {"concrete": 1e-4, "random": 2e-3, "spiking": math.inf}[a["phase"]]
        for name in names:
            assert math.isfinite(b[name])
            assert b[name] == pytest.approx(a[name], rel=tolerance), (a["step"], name)


@pytest.mark.parametrize("phase", ["concrete", "random"])
def test_two_processes_move_the_weights_as_one(both, even_corpus, small_steps, tmp_path, phase):
    """Each parameter differs by a small part of its way from the start; a wrong mean over ranks is half of it or more.

    Running statistics are means over images; a last bit can flip a spike, which moves those of deeper layers.
    """
    start = Run(load_recipe(small_steps), open_source(even_corpus), tmp_path / "none", progress=False)
    before = start.learner.published.state_dict()
    one, two = (load_file(run / f"phase-{phase}" / "model.safetensors") for run in both)
    assert one.keys() == two.keys()
    learned = {name for name, _ in start.learner.published.named_parameters()}
    assert len(learned & one.keys()) > 100
    for key in one:
        apart, noise = (two[key].double() - one[key].double()).norm(), 2e-7 * math.sqrt(one[key].numel())
        if key in learned:
            moved = (one[key].double() - before[key].double()).norm()
            assert apart <= 0.1 * moved + noise, key
        else:
            assert apart <= 3e-2 * one[key].double().norm() + noise, key


def test_two_processes_fill_the_queue_of_one(both):
    one, two = (load_file(sorted((run / "checkpoints").iterdir())[-1] / "queue.safetensors") for run in both)
    assert int(one["written"]) == int(two["written"]) == 4 * 24
    # 24 places: the last epoch, each pair once
    assert sorted(one["samples"].tolist()) == sorted(two["samples"].tolist())


def test_a_group_too_many_ranks_is_refused(even_corpus, recipe_data, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**recipe_data, "batch_size": 4}))
    done = torchrun("-m", "ashnets", "train", str(recipe), "--corpus", str(even_corpus), "-o", str(tmp_path / "r"))
    assert done.returncode != 0
    assert "batch_size=4 must be a multiple of φ × devices = 4 × 2" in done.stderr
    assert not (tmp_path / "r").exists()
