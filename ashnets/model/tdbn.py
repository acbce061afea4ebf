r"""Threshold-dependent batch normalization (tdBN; Zheng et al., AAAI 2021, paper's reference [31]).

    y = γ·(x − μ)/√(σ² + ε) + β_bn,   γ starts at α·θ

In training μ and σ² are computed over steps, batch and space; inference uses running estimates. After initialization
these are 0 and 1, far from the statistics of spike inputs, and deep layers stay silent in evaluation mode:
:func:`calibrate` sets the estimates from data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

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
        """y in float32 or float64. As in the fused kernel, inference rounds after the product and after the sum."""
        if self.training:
            return super().super_forward(x if x.dtype == torch.float64 else x.float())  # (T·B, C, H, W)
        scale, shift = (
            values.view(1, -1, 1, 1) for values in self.scale_and_shift(self.running_mean, self.running_var)
        )
        return x * scale + shift  # (T·B, C, H, W)

    def sum_over_ranks(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x``; a norm that is synchronized over processes adds their values."""
        return x

    @torch.no_grad()
    def statistics(self, parts: list[Moments]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """μ and σ² of a sequence, (C,) float32 each, and the number of values of each; updates the running statistics.

        Args:
            parts: moments of all steps, in pieces of any length.
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
    """Statistics of each channel, float64: number of values, mean (C,), sum of squared distances from the mean (C,)."""

    count: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor


@torch.no_grad()
def moments(currents: torch.Tensor, rows: Rows) -> Moments:
    """Moments of (T, B, C, H, W), given as (T, N) rows.

    Raises:
        InputError: there is no neuron, as in an empty batch.
    """
    if currents.shape[1] == 0:
        raise InputError(f"currents of shape {tuple(rows.shape)} have no statistics: train on at least one image")
    means, squares = operators.moments(currents)
    steps, channels = currents.shape[0], rows.shape[2]
    neurons = means.numel() // channels
    mean = rows.total(means) / neurons
    square = rows.total(squares + steps * (means - rows.spread(mean.float())).square())
    # corrects for the center, which was rounded to float32
    square = square - steps * neurons * (mean.float() - mean).square()
    return Moments(mean.new_tensor(steps * neurons), mean, square)


def sum_moments(parts: list[Moments]) -> Moments:
    """Moments of all pieces together (Chan, Golub & LeVeque, 1979)."""
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
    """Inside, every batch norm of ``module``, tdBN included, averages the statistics of its inputs.

    All other modules stay in their mode: dropout, for example, is not switched on. A norm without input ends with the
    statistics of a new norm.
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
    module: torch.nn.Module, batches: Iterable[torch.Tensor], run: Callable[[torch.Tensor], object] | None = None
) -> int:
    """Set the running statistics of every batch norm in ``module``, tdBN included, from ``batches``.

    Args:
        module: a module with batch norms, usually an abstract encoder.
        batches: the inputs, one call each.
        run: a function that runs one batch; ``module(batch)`` by default.

    Returns:
        The number of batches.

    Raises:
        InputError: there was no batch; the statistics are unchanged.

    All layers are calibrated together: the input of each is the output of the layers below with the statistics of the
    same batch.
    """
    batches = iter(batches)
    first = next(batches, None)  # before the old statistics are cleared
    if first is None:
        raise InputError("calibrate() got no batch: give at least one")
    seen = 0
    with calibrating(module):
        for batch in chain([first], batches):
            (run or module)(batch)
            seen += 1
    return seen
