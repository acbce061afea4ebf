r"""Threshold-dependent batch normalization (tdBN; Zheng et al., AAAI 2021, paper's reference [31]).

    y = γ·(x − μ)/√(σ² + ε) + β_bn,   γ starts at α·θ

μ and σ² are taken over steps, batch and space in training; running estimates serve inference. Right after
initialization those estimates are 0 and 1, far from the truth of spike inputs, and deep layers stay silent in
evaluation mode: :func:`calibrate` sets them from data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from spikingjelly.activation_based import layer
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from ashnets.errors import InputError
from ashnets.kernels import operators
from ashnets.model.rows import Rows


class TdBN(layer.ThresholdDependentBatchNorm2d):
    """tdBN over (T, B, C, H, W).

    Args:
        channels: C.
        alpha: α, 1 for a plain stack.
        theta: θ of the neurons that follow.
    """

    def __init__(self, channels: int, alpha: float, theta: float) -> None:
        super().__init__(alpha, theta, channels)
        self.alpha = alpha
        self.theta = theta
        self.step_mode = "m"

    def scale_and_shift(self, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """a and c of y = a·x + c for given statistics, (C,) each."""
        scale = self.weight.float() * torch.rsqrt(variance.float() + self.eps)
        return scale, self.bias.float() - mean.float() * scale

    def super_forward(self, x: torch.Tensor) -> torch.Tensor:
        """y in float32 at least, as in the fused kernel; inference rounds as it does, after product and sum."""
        if self.training:
            return super().super_forward(x if x.dtype == torch.float64 else x.float())
        scale, shift = (
            values.view(1, -1, 1, 1) for values in self.scale_and_shift(self.running_mean, self.running_var)
        )
        return x * scale + shift

    def sum_over_ranks(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` where one process trains; a synchronized norm adds the others' values."""
        return x

    @torch.no_grad()
    def statistics(self, parts: list[Moments]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """μ and σ² of a sequence, (C,) float32 each, and the number of values behind each; moves the running ones.

        Args:
            parts: of all its steps, in pieces of any length.
        """
        own = sum_moments(parts)
        count = self.sum_over_ranks(own.count)
        mean = self.sum_over_ranks(own.count * own.mean) / count
        square = own.square + own.count * (own.mean - mean).square()
        variance = self.sum_over_ranks(square) / count
        if self.track_running_stats:
            self.num_batches_tracked += 1
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            unbiased = variance * count / (count - 1).clamp_min(1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        return mean.float(), variance.float(), count


@dataclass(frozen=True)
class Moments:
    """Of the values of each channel, float64: how many, their mean (C,), their squared distances from it (C,)."""

    count: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor


@torch.no_grad()
def moments(currents: torch.Tensor, rows: Rows) -> Moments:
    """Of (T, N) rows of (T, B, C, H, W).

    Raises:
        InputError: no neuron, as in an empty batch.
    """
    if currents.shape[1] == 0:
        raise InputError(f"currents of shape {tuple(rows.shape)} have no statistics: train on an image at least")
    means, squares = operators.moments(currents)
    steps, channels = currents.shape[0], rows.shape[2]
    neurons = means.numel() // channels
    mean = rows.total(means) / neurons
    square = rows.total(squares + steps * (means - rows.spread(mean.float())).square())
    # the center was rounded to float32
    square = square - steps * neurons * (mean.float() - mean).square()
    return Moments(mean.new_tensor(steps * neurons), mean, square)


def sum_moments(parts: list[Moments]) -> Moments:
    """Moments of pieces together (Chan, Golub & LeVeque, 1979)."""
    total = parts[0]
    for part in parts[1:]:
        count = total.count + part.count
        apart = part.mean - total.mean
        total = Moments(
            count,
            total.mean + apart * part.count / count,
            total.square + part.square + apart.square() * total.count * part.count / count,
        )
    return total


@contextmanager
def calibrating(module: torch.nn.Module) -> Iterator[None]:
    """Inside, every batch norm of ``module``, tdBN among them, gathers a plain average of the statistics it sees.

    The rest of the module stays in its mode; dropout, for one, is not switched on. A norm that sees nothing is left
    with the statistics of a fresh one.
    """
    norms = [m for m in module.modules() if isinstance(m, BatchNorm)]
    before = [(m.training, m.momentum) for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average over the batches
        norm.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.train(training)


def calibrate(
    module: torch.nn.Module, batches: Iterable[torch.Tensor], run: Callable[[torch.Tensor], Any] | None = None
) -> int:
    """Set the running statistics of every batch norm in ``module``, tdBN among them, from ``batches``.

    Args:
        module: anything that holds batch norms, usually an abstract encoder.
        batches: inputs of one call each.
        run: how one batch is run, ``module(batch)`` by default.

    Returns:
        The number of batches seen.

    Raises:
        InputError: no batch came; the statistics are as they were.

    Layers are calibrated together: each sees the spikes that its predecessors give with this batch's statistics.
    """
    batches = iter(batches)
    first = next(batches, None)  # asked for before the old statistics are cleared
    if first is None:
        raise InputError("calibrate() needs at least one batch, got none")
    seen = 0
    with calibrating(module):
        for batch in chain([first], batches):
            (run or module)(batch)
            seen += 1
    return seen
