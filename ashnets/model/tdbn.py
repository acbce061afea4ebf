r"""Threshold-dependent batch normalisation (tdBN; Zheng et al., AAAI 2021, paper's reference [31]).

    y = γ·(x − μ)/√(σ² + ε) + β_bn,   γ starts at α·θ

μ and σ² are taken over steps, batch and space in training; running estimates serve inference. Right after
initialisation those estimates are 0 and 1, far from the truth of spike inputs, and deep layers stay silent in
evaluation mode: :func:`calibrate` sets them from data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from spikingjelly.activation_based import layer

from ashnets.errors import InputError


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


@contextmanager
def calibrating(module: torch.nn.Module) -> Iterator[None]:
    """Inside, every tdBN of ``module`` gathers a plain average of the statistics it sees.

    The rest of the module stays in its mode; dropout, for one, is not switched on.
    """
    norms = [m for m in module.modules() if isinstance(m, TdBN)]
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
    """Set the running statistics of every tdBN in ``module`` from ``batches``.

    Args:
        module: anything that holds tdBN layers, usually an abstract encoder.
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
