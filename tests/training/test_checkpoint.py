"""Checkpoints: every bit comes back, half of one is never taken for a whole one, and faults are named."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ashnets.errors import TrainingError
from ashnets.objectives import EmbeddingQueue
from ashnets.training.checkpoint import (
    checkpoint_name,
    checkpoints,
    discard_old,
    load_checkpoint,
    load_weights,
    read_state,
    save_checkpoint,
    tensors_of,
)


class Tied(nn.Module):
    """An embedding that is also the output's weight, a norm with running statistics, a part that has no gradient."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(11, 6)
        self.norm = nn.BatchNorm1d(6)
        self.idle = nn.Linear(3, 2)
        self.out = nn.Linear(6, 11)
        self.out.weight = self.words.weight
        self.register_buffer("empty", torch.zeros(0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.words(ids)))


def optimizers_of(model: Tied) -> dict[str, torch.optim.Optimizer]:
    return {
        "transformer": torch.optim.AdamW(
            [
                {"params": [model.words.weight], "weight_decay": 0.1},
                {"params": [model.out.bias, *model.idle.parameters()]},
            ],
            lr=0.01,
        ),
        "spiking": torch.optim.SGD(model.norm.parameters(), lr=0.1, momentum=0.9),
    }


def steps(model: Tied, optimizers: dict, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        ids = torch.randint(11, (7,), generator=generator)
        model.zero_grad()
        nn.functional.cross_entropy(model(ids), ids).backward()
        for optimizer in optimizers.values():
            optimizer.step()


def queue_of(pairs: int) -> EmbeddingQueue:
    queue = EmbeddingQueue(4, 3)
    queue.enqueue(torch.rand(pairs, 3), torch.rand(pairs, 3), torch.arange(pairs))
    return queue


def same_bits(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.fixture
def saved(tmp_path):
    """A run of three steps: its folder, model, queue and optimizers."""
    model, queue = Tied(0), queue_of(7)
    optimizers = optimizers_of(model)
    steps(model, optimizers, 3, seed=1)
    order = {"indices": torch.tensor([4, 2, 0, 3, 1]), "sizes": torch.tensor([2, 3])}
    state = {"epoch": 1, "step": 3, "sums": {"loss": [0.1 + 0.2, 3]}, "skipped": {"a\u00e9": "cut short"}}
    folder = tmp_path / checkpoint_name(3)
    save_checkpoint(folder, {"model": model, "queue": queue}, state, optimizers, order)
    return folder, model, queue, optimizers, state, order


def test_every_bit_comes_back(saved):
    folder, model, queue, optimizers, state, order = saved
    other, other_queue = Tied(5), queue_of(2)
    others = optimizers_of(other)
    found, found_order = load_checkpoint(folder, {"model": other, "queue": other_queue}, others)
    assert found == read_state(folder) == state and same_bits(found_order, order)
    assert same_bits(other.state_dict(), model.state_dict()) and same_bits(other_queue.state_dict(), queue.state_dict())
    assert other.out.weight is other.words.weight
    for part, optimizer in optimizers.items():
        kept, back = (o.state_dict()["state"] for o in (optimizer, others[part]))
        assert kept.keys() == back.keys() and len(kept) == 2, "what had no gradient has no state"
        assert all(same_bits(kept[index], back[index]) for index in kept)
    assert set(kept[0]) == {"momentum_buffer"}
    # and they go on as one: Adam's counts and both momenta are in use
    steps(model, optimizers, 2, seed=9)
    steps(other, others, 2, seed=9)
    assert same_bits(other.state_dict(), model.state_dict())


def test_before_the_first_step_and_without_an_order(tmp_path):
    """Optimizers without state, after some with one: what is loaded replaces it."""
    model, other = Tied(0), Tied(5)
    save_checkpoint(tmp_path / "step-00000000", {"model": model}, {}, optimizers_of(model))
    others = optimizers_of(other)
    steps(other, others, 2, seed=1)
    assert load_checkpoint(tmp_path / "step-00000000", {"model": other}, others) == ({}, {})
    assert same_bits(other.state_dict(), model.state_dict())
    assert [optimizer.state_dict()["state"] for optimizer in others.values()] == [{}, {}]


def test_tied_tensors_are_stored_once(saved):
    folder, model, *_ = saved
    stored = load_file(folder / "model.safetensors")
    assert stored.keys() == tensors_of(model).keys()
    assert len(stored) == len(model.state_dict()) - 1
    assert sum(t.numel() for t in stored.values()) == 11 * 6 + 11 + (4 * 6 + 1) + (3 * 2 + 2)


def test_saving_again_replaces_what_was_there(tmp_path):
    """A phase's folder is written twice when a run was killed between it and the checkpoint after it."""
    for seed in (0, 1):
        save_checkpoint(tmp_path / "phase-one", {"model": Tied(seed)}, {"seed": seed})
    model = Tied(3)
    load_weights(tmp_path / "phase-one" / "model.safetensors", model)
    assert read_state(tmp_path / "phase-one") == {"seed": 1} and same_bits(model.state_dict(), Tied(1).state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["phase-one"]


def test_the_newest_two_are_kept(tmp_path):
    for step in (9, 200, 10, 1000, 99):
        save_checkpoint(tmp_path / checkpoint_name(step), {"model": Tied(step)}, {"step": step})
    assert [read_state(path)["step"] for path in checkpoints(tmp_path)] == [9, 10, 99, 200, 1000]
    discard_old(tmp_path)
    assert [read_state(path)["step"] for path in checkpoints(tmp_path)] == [200, 1000]
    discard_old(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000200", "step-00001000"]
    assert checkpoints(tmp_path / "nothing") == []


def test_a_half_written_one_is_never_taken(saved):
    """Killed before the rename, with all files there; and killed while an old one was being removed."""
    folder, *_ = saved
    root = folder.parent
    folder.rename(root / ".step-00000003.0123abcd.part")
    assert checkpoints(root) == []
    (root / "step-00000002").mkdir()
    save_file({"x": torch.ones(1)}, root / "step-00000002" / "model.safetensors")
    assert checkpoints(root) == [], "without its state it is none"
    (root / "step-by-step").mkdir()  # of the user
    save_checkpoint(root / "step-00000001", {"model": Tied(0)}, {})
    discard_old(root)
    assert [path.name for path in checkpoints(root)] == ["step-00000001"]
    save_checkpoint(root / "step-00000003", {"model": Tied(0)}, {})  # the resumed run comes to that step again
    assert sorted(path.name for path in root.iterdir()) == ["step-00000001", "step-00000003", "step-by-step"]


def test_what_a_killed_run_left_aside_is_removed(saved):
    folder, model, *_ = saved
    aside = folder.with_name(".step-00000004.0123abcd.part")
    aside.mkdir()
    (aside / "stale.safetensors").write_bytes(b"half")
    whole = folder.with_name("step-00000004")
    save_checkpoint(whole, {"model": model}, {})
    assert not aside.exists()
    assert sorted(path.name for path in whole.iterdir()) == ["model.safetensors", "state.json"]


@pytest.mark.parametrize("name", ["model", "queue", "optimizers", "order"])
@pytest.mark.parametrize("how", ["cut", "noise", "gone"])
def test_a_damaged_file_is_named_with_its_remedy(saved, name, how):
    folder, model, queue, optimizers, *_ = saved
    path = folder / f"{name}.safetensors"
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
        if name == "order":  # there need not be one
            assert load_checkpoint(folder, {"model": model, "queue": queue}, optimizers)[1] == {}
            return
    else:
        path.write_bytes(data[: len(data) - 5] if how == "cut" else b"\xff" * len(data))
    remedy = r"cannot be read .*delete this folder to continue from the one before"
    with pytest.raises(TrainingError, match=remedy) as error:
        load_checkpoint(folder, {"model": model, "queue": queue}, optimizers)
    assert str(error.value).startswith(f"{folder}: ")


@pytest.mark.parametrize("text", [None, '{"epoch": 1, "st', "\ufeff"])
def test_a_damaged_state_is_named(saved, text):
    folder, model, queue, optimizers, *_ = saved
    if text is None:
        (folder / "state.json").unlink()
    else:
        (folder / "state.json").write_bytes(text.encode("utf-16"))
    remedy = r"the checkpoint cannot be read .*delete this folder to continue from the one before"
    with pytest.raises(TrainingError, match=remedy) as error:
        load_checkpoint(folder, {"model": model, "queue": queue}, optimizers)
    assert str(folder) in str(error.value)


def test_what_does_not_fit_is_named(saved):
    folder, _, queue, optimizers, *_ = saved
    other = Tied(0)
    other.idle = nn.Linear(4, 2)  # another shape
    other.more = nn.Linear(2, 2)  # not in the file
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(TrainingError) as error:
        load_checkpoint(folder, {"model": other, "queue": queue}, optimizers)
    assert str(folder / "model.safetensors") in str(error.value)
    assert "missing ['more.bias', 'more.weight']" in str(error.value)
    assert "of another shape ['idle.weight']" in str(error.value)
    assert same_bits(other.state_dict(), before), "nothing was loaded"


def test_partly_leaves_out_what_the_model_lacks_but_fills_all_that_it_has(tmp_path):
    """The variant without a spiking branch starts from the phase of one that has it, not the other way round."""
    whole, part = Tied(0), Tied(1)
    del part.idle
    save_checkpoint(tmp_path / "whole", {"model": whole}, {})
    save_checkpoint(tmp_path / "part", {"model": part}, {})
    load_weights(tmp_path / "whole" / "model.safetensors", part, partly=True)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in part.state_dict().items())
    with pytest.raises(TrainingError, match=r"unknown or of another shape \['idle"):
        load_weights(tmp_path / "whole" / "model.safetensors", part)
    with pytest.raises(TrainingError, match=r"missing \['idle\.bias', 'idle\.weight'\]"):
        load_weights(tmp_path / "part" / "model.safetensors", whole, partly=True)


FULL_DISK = """
import json, resource, sys
from pathlib import Path
import torch
from torch import nn
from ashnets.errors import TrainingError
from ashnets.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint

root, hard = Path(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def parts(seed):
    torch.manual_seed(seed)
    model = nn.Linear(200, 199)  # 160 kB
    optimizers = {"all": torch.optim.AdamW(model.parameters())}  # 320 kB
    model(torch.ones(1, 200)).sum().backward()
    optimizers["all"].step()
    return model, optimizers

def save(step, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    model, optimizers = parts(step)
    try:
        save_checkpoint(root / f"step-0000000{step}", {"model": model}, {"step": step}, optimizers)
        return None
    except TrainingError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

found = {"errors": [save(1, hard), save(2, 20_000), save(2, 200_000)], "left": sorted(p.name for p in root.iterdir())}
model, optimizers = parts(7)
load_checkpoint(checkpoints(root)[-1], {"model": model}, optimizers)
found["same"] = torch.equal(model.weight, parts(1)[0].weight)
found["errors"].append(save(2, hard))
found["end"] = [p.name for p in checkpoints(root)]
print(json.dumps(found))
"""


def test_a_full_disk_leaves_the_one_before(tmp_path):
    """No file may grow beyond a limit: below the model's size, and between the model's and the optimizer's."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, small, between, again = found["errors"]
    assert first is None and again is None
    for message in (small, between):
        assert message.startswith(str(tmp_path / "step-00000002")) and "could not be written" in message
        assert "free disk space and continue with --resume" in message
    assert found["left"] == ["step-00000001"] and found["same"]
    assert found["end"] == ["step-00000001", "step-00000002"]
