"""Costs of small nets that can be counted by hand, and a model that is the same afterwards."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ashnets.errors import ConfigurationError
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.training import estimate as estimating
from ashnets.training.estimate import bytes_of, count_parameters, estimate, unchanged

ROWS = 4


class Net(nn.Module):
    """5 → 7 → 3 with the names of the model's parts: concrete 42 + 14, spiking 24 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Module()
        self.vision.concrete_encoder = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
        self.vision.abstract_encoder = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.vision.abstract_encoder(self.vision.concrete_encoder(x).relu())


def optimizers_of(net: Net) -> dict[str, torch.optim.Optimizer]:
    return {
        "concrete": torch.optim.AdamW(net.vision.concrete_encoder.parameters()),
        "spiking": torch.optim.SGD(net.vision.abstract_encoder.parameters(), lr=0.1, momentum=0.9),
    }


def cost(model: nn.Module, run_step, **changes) -> dict:
    settings = {"optimizers": {}, "copies": 0, "queue_bytes": 0, "pairs": ROWS, "steps": 10, "device": "cpu"}
    return estimate(model, run_step, **{**settings, **changes})


def test_operations_of_two_layers_by_hand() -> None:
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    x = torch.randn(ROWS, 5)
    found = cost(net, lambda: net(x).sum().backward())
    forward = 2 * ROWS * (5 * 7 + 7 * 3)
    # backward: a product for each weight and for each input, but none for the input of the first layer
    assert found["flops_a_step"] == 3 * forward - 2 * ROWS * 5 * 7 == 1064
    assert (found["flops_run"], found["flops_a_pair"]) == (10640, 266.0)


def test_operations_of_a_convolution_by_hand() -> None:
    net = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
    x = torch.randn(2, 3, 8, 8)
    macs = 2 * 6 * 4 * 4 * 3 * 3 * 3
    assert cost(net, lambda: net(x).sum().backward())["flops_a_step"] == 2 * 2 * macs
    x.requires_grad_()
    assert cost(net, lambda: net(x).sum().backward())["flops_a_step"] == 3 * 2 * macs


def test_memory_by_hand() -> None:
    net = Net()
    x = torch.randn(ROWS, 5)
    found = cost(net, lambda: net(x).sum().backward(), optimizers=optimizers_of(net), copies=2, queue_bytes=1000)
    assert found["parameters"] == found["parameters_trainable"] == 80
    assert (found["parameters_concrete"], found["parameters_spiking"]) == (56, 24)
    assert found["bytes_weights"] == bytes_of(net) == 4 * 80 + (4 * 7 + 4 * 7 + 8), "batch norm keeps 2 x 7 and a count"
    assert found["bytes_gradients"] == 4 * 80
    assert found["bytes_optimizers"] == 4 * (2 * 56 + 1 * 24)
    assert found["bytes_copies"] == 2 * 384
    parts = ("weights", "gradients", "buckets", "optimizers", "copies", "queues", "activations")
    assert found["bytes_total"] == sum(found[f"bytes_{part}"] for part in parts)


def test_several_processes_keep_the_gradients_twice() -> None:
    """The buckets of DistributedDataParallel, for the 24 parameters that train."""
    net = Net()
    net.vision.concrete_encoder.requires_grad_(False)
    x = torch.randn(ROWS, 5)
    one, two = (cost(net, lambda: net(x).sum().backward(), ranks=ranks) for ranks in (1, 2))
    assert (one["bytes_buckets"], two["bytes_buckets"]) == (0, 4 * 24)
    assert two["bytes_total"] == one["bytes_total"] + 4 * 24


def test_state_is_what_the_optimizers_really_keep() -> None:
    """After a real step, the tensors like the parameter in the optimizers' own state; a frozen part has none."""
    net = Net()
    net.vision.concrete_encoder.requires_grad_(False)
    x = torch.randn(ROWS, 5)
    optimizers = {
        "concrete": torch.optim.AdamW(net.vision.concrete_encoder.parameters()),
        "spiking": torch.optim.Adam(net.vision.abstract_encoder.parameters(), amsgrad=True),
    }
    found = cost(net, lambda: net(x).sum().backward(), optimizers=optimizers)
    net(x).sum().backward()
    for optimizer in optimizers.values():
        optimizer.step()
    kept = [
        value
        for optimizer in optimizers.values()
        for parameter, state in optimizer.state.items()
        for value in state.values()
        if value.shape == parameter.shape
    ]
    assert found["bytes_optimizers"] == sum(value.nbytes for value in kept) == 4 * 3 * 24
    assert (found["parameters_trainable"], found["bytes_gradients"]) == (24, 4 * 24)


def test_another_optimizer_is_refused() -> None:
    net = Net()
    with pytest.raises(ConfigurationError, match=r"optimizers\.concrete: the state that RMSprop keeps"):
        cost(net, lambda: None, optimizers={"concrete": torch.optim.RMSprop(net.parameters())})


def test_activations_by_hand() -> None:
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))

    def run(*sizes: int) -> None:
        for rows in sizes:
            net(torch.randn(rows, 5)).square().sum().backward()

    # kept: the input, the rectified 7 (by the rectifier and the second layer, in one storage), the squared 3; no weight
    a_row = 4 * (5 + 7 + 3)
    assert cost(net, lambda: run(4))["bytes_activations"] == 4 * a_row
    assert cost(net, lambda: run(4, 9, 2))["bytes_activations"] == 9 * a_row, "each graph is gone before the next"


def test_activation_checkpointing_by_hand() -> None:
    blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh()) for _ in range(5))

    def run(again: bool) -> None:
        x = torch.randn(ROWS, 8)
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        x.sum().backward()

    plain, again = cost(blocks, lambda: run(False)), cost(blocks, lambda: run(True))
    row = 4 * 8
    assert plain["bytes_activations"] == ROWS * row * (1 + 5 * 2), "the input, and what each tanh gave"
    assert again["bytes_activations"] == ROWS * row * 5, "the input of each block"
    assert again["flops_a_step"] - plain["flops_a_step"] == 5 * 2 * (2 * ROWS * 8 * 8), "every product once more"


def test_activations_held_at_one_time_add_up() -> None:
    net = nn.Linear(5, 3)

    def run() -> None:
        (net(torch.randn(4, 5)).sum() + net(torch.randn(6, 5)).sum()).backward()

    assert cost(net, run)["bytes_activations"] == 4 * 10 * 5


def test_gradients_are_right_under_the_ledger() -> None:
    """Counting must not change what the backward pass computes; the counted step is the first of three."""
    net, x = Net(), torch.randn(ROWS, 5)
    seen = []

    def run() -> None:
        net(x).square().sum().backward()
        seen.append([p.grad.clone() for p in net.parameters()])

    cost(net, run)
    assert len(seen) == 3
    for counted, plain in zip(seen[0], seen[2], strict=True):
        torch.testing.assert_close(counted, plain, rtol=0, atol=0)


def test_everything_is_left_as_it_was() -> None:
    net, beside, x = Net().train(), nn.BatchNorm1d(5).eval(), torch.randn(ROWS, 5)
    weight = net.vision.abstract_encoder.weight
    weight.grad = torch.full_like(weight, 2.0)
    gradient = weight.grad
    before = {k: v.clone() for m in (net, beside) for k, v in m.state_dict().items()}
    buffers = [id(b) for m in (net, beside) for b in m.buffers()]
    random = torch.get_rng_state()

    def run() -> None:
        assert weight.grad is None, "nothing to add to, as in a run"
        beside.train()
        beside.running_mean = beside.running_mean + torch.rand(5)  # another tensor in the place of the buffer
        net(beside(x)).sum().backward()

    cost(net, run, beside=[beside])
    assert {k: v for m in (net, beside) for k, v in m.state_dict().items()}.keys() == before.keys()
    for module in (net, beside):
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name
    assert [id(b) for m in (net, beside) for b in m.buffers()] == buffers
    assert weight.grad is gradient and torch.equal(gradient, torch.full_like(weight, 2.0))
    assert [p.grad is None for p in net.parameters()].count(False) == 1
    assert net.training and not beside.training
    assert torch.equal(torch.get_rng_state(), random)


def test_a_step_that_fails_leaves_everything_as_it_was() -> None:
    net, x = Net(), torch.randn(ROWS, 5)
    before = {k: v.clone() for k, v in net.state_dict().items()}

    def run() -> None:
        net(x).sum().backward()
        raise FloatingPointError("no number")

    with pytest.raises(FloatingPointError, match="no number"), unchanged(net):
        run()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_time_is_that_of_a_warm_step(monkeypatch) -> None:
    waits, clock = iter((0.5, 0.0625, 0.0625)), [0.0]

    def step() -> None:
        clock[0] += next(waits)

    monkeypatch.setattr(estimating, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    found = cost(nn.Linear(1, 1), step, steps=100)
    assert found["seconds_a_step"] == 0.0625
    assert found["seconds_run"] == 100 * found["seconds_a_step"]
    assert found["pairs_a_second"] == ROWS / found["seconds_a_step"]


def test_the_real_model(small_pretraining_config) -> None:
    model = AshNetsForPreTraining(small_pretraining_config).train()
    images = torch.rand(4, 3, 64, 64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = cost(model, lambda: model.ashnets.vision(images, [1, 2, 3, 4], group_size=4).output.sum().backward())
    parts = ("transformer", "concrete", "spiking", "collector")
    counts = count_parameters(model)
    assert sum(counts[f"parameters_{part}"] for part in parts) == counts["parameters"] == found["parameters"]
    assert found["flops_a_step"] > 0 and found["bytes_activations"] > images.nbytes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
