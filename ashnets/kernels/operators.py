"""The kernels as torch operators: each device uses the fastest available one, and torch.compile sees one node.

Without numba (the extra ``fast``) or Triton the definitions in plain torch are used; spikes are the same.
Arguments and results are those of :mod:`ashnets.kernels.reference`, except that currents may also be float16 or
bfloat16. Then spikes and the gradient of the currents have this type, and everything else is float32. Half-precision
types are read without a copy if the device's kernels support them (``TYPES``): Triton's support both, numba's bfloat16.

torch.compile sees the forms ``…_operator``. Outside of it the neurons' two passes are called directly, since the way
through torch's dispatcher and back to Python takes longer than a small layer's arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from ashnets.kernels import reference
from ashnets.kernels.choosing import kernels_for

Given = ParamSpec("Given")
Found = TypeVar("Found")


def _kernels(x: torch.Tensor) -> ModuleType:
    return reference if x.dtype == torch.float64 else kernels_for(x.device.type)


def _readable(kernels: ModuleType, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """``tensors`` in one type that the kernels support: unchanged, or as copies in float32."""
    types = {one.dtype for one in tensors}
    return tensors if len(types) == 1 and types <= {*kernels.TYPES} else tuple(one.float() for one in tensors)


def _like(shape: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """An empty kernel result in the shape of x or v, contiguous; that of v is float64 if x is."""
    kind = torch.promote_types(shape.dtype, x.dtype)
    return torch.empty_like(shape, dtype=kind, memory_format=torch.contiguous_format)


def _direct(plain: Callable[Given, Found], operator: Callable[..., Found]) -> Callable[Given, Found]:
    """``plain``, or its operator if a compiler or a tensor without memory must see it."""

    @functools.wraps(plain)
    def call(*args: Given.args, **options: Given.kwargs) -> Found:
        traced = torch.compiler.is_compiling() or type(args[0]) not in (torch.Tensor, torch.nn.Parameter)
        return (operator if traced else plain)(*args, **options)

    return call


def lif_forward(
    x: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None, beta: float, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes and the last membrane. An exported program contains only plain operators, so that it runs anywhere."""
    forward = reference.lif_forward if torch.compiler.is_exporting() else _forward
    return forward(x, v, scale, shift, beta, theta)


def _lif_forward(
    x: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None, beta: float, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    kernels = _kernels(x)
    s, last = kernels.lif_forward(*_readable(kernels, x), v, scale, shift, beta, theta)
    return s.to(x.dtype), last


lif_operator = torch.library.custom_op("ashnets::lif_forward", _lif_forward, mutates_args=())
_forward = _direct(_lif_forward, lif_operator)


@lif_operator.register_fake
def _(x: torch.Tensor, v: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    return _like(x, x), _like(v, x)


def _lif_backward(
    x: torch.Tensor,
    v: torch.Tensor,
    scale: torch.Tensor | None,
    shift: torch.Tensor | None,
    mean: torch.Tensor | None,
    grad_s: torch.Tensor,
    grad_v: torch.Tensor | None,
    beta: float,
    theta: float,
    k: float,
    detach: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the currents and the first membrane, and both sums, which are empty without ``mean``.

    ``grad_v`` None means zero.
    """
    if grad_v is None:
        # NumPy's zeros start no parallel region, after which torch's threads would spin and slow down the kernel
        grad_v = torch.from_numpy(np.zeros(len(v), np.float32)) if v.device.type == "cpu" else torch.zeros_like(v)
    kernels = _kernels(x)
    currents, grad_s = _readable(kernels, x, grad_s)
    grad, *found = kernels.lif_backward(currents, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach)
    sums = [v.new_empty(0), v.new_empty(0)] if mean is None else found[1:]
    return grad.to(x.dtype), found[0], *sums


lif_backward_operator = torch.library.custom_op("ashnets::lif_backward", _lif_backward, mutates_args=())
lif_backward = _direct(_lif_backward, lif_backward_operator)


@lif_backward_operator.register_fake
def _(
    x: torch.Tensor, v: torch.Tensor, scale: object, shift: object, mean: object, *_: object
) -> tuple[torch.Tensor, ...]:
    sums = v.new_empty(0) if mean is None else _like(v, x)
    return _like(x, x), _like(v, x), sums, torch.empty_like(sums)


@torch.library.custom_op("ashnets::moments", mutates_args=())
def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sum of squared distances over time."""
    kernels = _kernels(x)
    return kernels.moments(*_readable(kernels, x))


@moments.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    kind = torch.promote_types(x.dtype, torch.float32)
    return torch.empty_like(x[0], dtype=kind), torch.empty_like(x[0], dtype=kind)


@torch.library.custom_op("ashnets::norm_backward", mutates_args=("grad",))
def norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    factor: torch.Tensor,
    grad_mean: torch.Tensor,
    product: torch.Tensor,
) -> None:
    """The gradient through normalized currents, in place."""
    kernels = _kernels(x)
    changed, currents = _readable(kernels, grad, x)
    kernels.norm_backward(changed, currents, mean, factor, grad_mean, product)
    if changed is not grad:
        grad.copy_(changed)
