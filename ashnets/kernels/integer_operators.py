"""The integer kernels as torch operators, like the float ones in :mod:`ashnets.kernels.operators`.

Arguments and results are those of :mod:`ashnets.kernels.integer_reference`. On a CPU the compiled kernel takes float32
currents; other types and other devices, including CUDA, use the definition in torch.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch

from ashnets.kernels import integer_reference
from ashnets.kernels.choosing import integer_kernels_for


def _kernels(a: torch.Tensor) -> ModuleType:
    return integer_kernels_for(a.device.type) if a.dtype == torch.float32 else integer_reference


def lif_forward(
    a: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, threshold: torch.Tensor, decay: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes and the last membrane; an exported program contains only plain operators."""
    forward = integer_reference.lif_forward if torch.compiler.is_exporting() else lif_operator
    return forward(a, v, bias, threshold, decay)


@torch.library.custom_op("ashnets::integer_lif_forward", mutates_args=())
def lif_operator(
    a: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, threshold: torch.Tensor, decay: int
) -> tuple[torch.Tensor, torch.Tensor]:
    return _kernels(a).lif_forward(a, v, bias, threshold, decay)


@lif_operator.register_fake
def _(a: torch.Tensor, v: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(a, memory_format=torch.contiguous_format), torch.empty_like(v)


@torch.library.custom_op("ashnets::integer_lif_backward", mutates_args=())
def lif_backward(
    a: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor,
    threshold: torch.Tensor,
    decay: int,
    step: torch.Tensor,
    grad_s: torch.Tensor,
    grad_v: torch.Tensor | None,
    k: float,
    detach: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of currents, first membrane and bias; ``grad_v`` of None is zero."""
    if grad_v is None:
        # as in ashnets.kernels.operators: no parallel region just before the kernel
        grad_v = torch.from_numpy(np.zeros(len(v), np.float32)) if v.device.type == "cpu" else torch.zeros_like(v)
    return _kernels(a).lif_backward(a, v, bias, threshold, decay, step, grad_s, grad_v, k, detach)


@lif_backward.register_fake
def _(a: torch.Tensor, v: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    found = torch.empty_like(a, memory_format=torch.contiguous_format)
    return found, torch.empty_like(v), torch.empty_like(v)
