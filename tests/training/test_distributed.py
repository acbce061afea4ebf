"""Two processes over gloo against one: gathers, means, norms, and whole runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ashnets.training.run import train

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
def both(even_corpus, recipe_data, tmp_path_factory) -> tuple[Path, Path]:
    """The same run by one process and by two with half the batch each: SGD, since Adam makes much of a last bit."""
    folder = tmp_path_factory.mktemp("both")
    sgd = {part: {"kind": "sgd", "lr": 1.0e-2} for part in ("transformer", "concrete", "spiking")}
    changes = {"queue": 20, "momentum": 0.9, "distillation": 0.3, "ema": 0.9, "accumulate": 2, "optimisers": sgd}
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**recipe_data, **changes}))
    train(recipe, corpus=even_corpus, output=folder / "one", progress=False)
    done = torchrun("-m", "ashnets", "train", str(recipe), "--corpus", str(even_corpus), "-o", str(folder / "two"))
    assert done.returncode == 0, done.stderr
    return folder / "one", folder / "two"


def test_two_processes_give_the_losses_of_one(both):
    """24 pictures, φ = 4, 8 pairs a pass: every pass is full. All objectives, queue, distillation and norms agree.

    Tolerance: 1e-4 of each figure in the first epoch; a spike that flips on a last bit may move a spiking figure by
    1 % later.
    """
    one, two = ([json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()] for run in both)
    assert [record["step"] for record in one] == [record["step"] for record in two] == list(range(1, 9))
    names = {"loss", "itc", "itm", "mlm", "tau", "itm_accuracy"}
    for a, b in zip(one, two, strict=True):
        tolerance = 1e-4 if a["epoch"] == 1 else 1e-2
        for name in names | ({"mvm", "stua", "summary_ratio", "rate_conv1"} if a["epoch"] > 2 else set()):
            assert b[name] == pytest.approx(a[name], rel=tolerance, abs=tolerance), (a["step"], name)
        assert a["pairs_seen"] == b["pairs_seen"]


def test_two_processes_end_with_the_weights_and_queues_of_one(both):
    one, two = (sorted((run / "checkpoints").iterdir())[-1] for run in both)
    for name, tolerance in (("model", 2e-3), ("momentum", 2e-3), ("ema", 2e-3), ("queue", 2e-2)):
        a, b = load_file(one / f"{name}.safetensors"), load_file(two / f"{name}.safetensors")
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(b[key], a[key], rtol=tolerance, atol=tolerance, msg=f"{name}: {key}")


def test_a_group_too_many_ranks_is_refused(even_corpus, recipe_data, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**recipe_data, "pairs": 4}))
    done = torchrun("-m", "ashnets", "train", str(recipe), "--corpus", str(even_corpus), "-o", str(tmp_path / "r"))
    assert done.returncode != 0
    assert "pairs=4 must be a multiple of φ × devices = 4 × 2" in done.stderr
    assert not (tmp_path / "r").exists()
