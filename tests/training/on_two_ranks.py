"""What a rank does in tests/training/test_distributed.py: ``torchrun --nproc_per_node 2 on_two_ranks.py FOLDER``.

Each rank computes on its part of one batch and writes what it found to ``FOLDER/rank-R.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from ashnets.model.tdbn import TdBN
from ashnets.training import precision
from ashnets.training.distributed import gather, mean_over_ranks, pad_to_longest, shares, synchronize_norms
from ashnets.training.gauges import gradient_norms
from ashnets.training.reading import load_recipe
from ashnets.zoo import config_of
from ashnets.zoo.registry import recipe_path

SIZES = (5, 3)  # pairs of each rank: an uneven last batch


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(8, 4) and (2, 8, 3, 4, 4) numbers, the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 4, generator=generator), torch.randn(2, 8, 3, 4, 4, generator=generator) * 3 + 1


def norms() -> tuple[nn.BatchNorm2d, TdBN]:
    """The two norms with parameters that are not those of the start."""
    plain, threshold = nn.BatchNorm2d(3), TdBN(3, 1.0, 1.0)
    for norm in (plain, threshold):
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.5, -1.0]))
            norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    return plain, threshold


def through(norm: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of a norm in training and the gradient at its input, of Σ y³."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y.pow(3).sum().backward()
    return y.detach(), x.grad


class Net(nn.Module):
    """One matrix, in a part of the model; its gradient for x·Wᵀ is transposed in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Module()
        self.vision.abstract_encoder = nn.Linear(4, 2, bias=False)


def main(folder: Path) -> None:
    """One rank's part of everything."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    mine = slice(0, SIZES[0]) if rank == 0 else slice(SIZES[0], None)
    rows, maps = batch()
    x = rows[mine].clone().requires_grad_()
    everything = gather(x)
    # each rank weighs the rows in its own way: a row's gradient is the sum of both ways
    weights = torch.arange(8.0).unsqueeze(1) * (1 if rank == 0 else 10)
    (everything * weights).sum().backward()
    found = {
        "gathered": everything.tolist(),
        "gradient": x.grad.tolist(),
        "padded": pad_to_longest(torch.ones(2, 3 + 2 * rank, dtype=torch.long)).tolist(),
        "shares": shares(torch.tensor([3.0, 0.0]) if rank == 0 else torch.tensor([1.0, 0.0])).tolist(),
        "mean": mean_over_ranks(torch.tensor([1.0 + rank])).tolist(),
    }
    precision.bf16_speedup = lambda _: 2.0 - 1.5 * rank  # the ranks disagree
    auto = load_recipe(recipe_path("tiny-pictograms"), ["precision=auto"])
    found["precision"] = precision.with_precision(auto, config_of("ashnets-tiny"), torch.device("cpu"))[0].precision
    net = Net()
    losses = {"itc": net.vision.abstract_encoder(rows[mine]).sum()}
    found["norms"] = {name: float(norm) for name, norm in gradient_norms(net, losses, {"itc": 0.5}).items()}
    plain, threshold = norms()
    synchronize_norms(nn.ModuleList([plain, threshold]))
    for name, norm, x in (("plain", plain, maps[0, mine]), ("threshold", threshold, maps[:, mine])):
        y, grad = through(norm, x)
        found[name] = {
            "y": y.tolist(),
            "grad": grad.tolist(),
            "weight": norm.weight.grad.tolist(),
            "bias": norm.bias.grad.tolist(),
            "mean": norm.running_mean.tolist(),
            "variance": norm.running_var.tolist(),
        }
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
