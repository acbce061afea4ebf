"""The kernels as operators of torch: each device gets the fastest that is there, and torch.compile sees one node.

Without numba (``pip install ashnets[fast]``) or Triton the definitions in plain torch run; spikes are the same.
Arguments and results are those of :mod:`ashnets.kernels.reference`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ashnets.kernels import reference
from ashnets.kernels.choosing import kernels_for


def _kernels(x: torch.Tensor) -> Any:
    return kernels_for(x.device.type) if x.dtype == torch.float32 else reference


def lif_forward(
    x: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None, beta: float, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes and the last membrane. An exported program holds plain operators, one after another: it runs anywhere."""
    forward = reference.lif_forward if torch.compiler.is_exporting() else lif_operator
    return forward(x, v, scale, shift, beta, theta)


@torch.library.custom_op("ashnets::lif_forward", mutates_args=())
def lif_operator(
    x: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None, beta: float, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return _kernels(x).lif_forward(x, v, scale, shift, beta, theta)


@lif_operator.register_fake
def _(x: torch.Tensor, v: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(v)


@torch.library.custom_op("ashnets::lif_backward", mutates_args=())
def lif_backward(
    x: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None,
    mean: torch.Tensor | None, grad_s: torch.Tensor, grad_v: torch.Tensor | None, beta: float, theta: float, k: float,
    detach: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of currents and first membrane, and both sums; these are empty without ``mean``.

    ``grad_v`` of None is zero.
    """
    if grad_v is None:
        # numpy's zeros need no parallel region, after which torch's threads would spin where the kernel's want to run
        grad_v = torch.from_numpy(np.zeros(len(v), np.float32)) if v.device.type == "cpu" else torch.zeros_like(v)
    found = _kernels(x).lif_backward(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach)
    if mean is None:
        return found[0], found[1], x.new_empty(0), x.new_empty(0)
    return found


@lif_backward.register_fake
def _(x: torch.Tensor, v: torch.Tensor, scale: Any, shift: Any, mean: Any, *_: Any) -> tuple[torch.Tensor, ...]:
    sums = x.new_empty(0) if mean is None else torch.empty_like(v)
    return torch.empty_like(x), torch.empty_like(v), sums, torch.empty_like(sums)


@torch.library.custom_op("ashnets::moments", mutates_args=())
def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and squared distances over time."""
    return _kernels(x).moments(x)


@moments.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x[0]), torch.empty_like(x[0])


@torch.library.custom_op("ashnets::norm_backward", mutates_args=("grad",))
def norm_backward(
    grad: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, factor: torch.Tensor, grad_mean: torch.Tensor,
    product: torch.Tensor,
) -> None:  # fmt: skip
    """The gradient through normalised currents, in place."""
    _kernels(x).norm_backward(grad, x, mean, factor, grad_mean, product)
