r"""One layer of the abstract encoder: convolution, tdBN and LIF neurons over (T, B, C, H, W).

The three are modules of spikingjelly's kind, each of which can be watched. Unless one is, tdBN and LIF run as one
kernel: with normalised currents y = a·x + c, a = γ/√(σ² + ε), c = β_bn − a·μ, neither y nor h is ever written to
memory, and the gradient passes through the statistics as

    x̄ = a·(ȳ − Σȳ/n) − a/(σ² + ε)·(x − μ)·Σȳ(x − μ)/n,      γ̄ = Σȳ(x − μ)/√(σ² + ε),      β̄_bn = Σȳ
"""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import layer
from torch import nn
from torch.autograd.function import once_differentiable

from ashnets.configuration import AshNetsConfig
from ashnets.kernels import operators
from ashnets.model.neuron import LIF
from ashnets.model.offloading import at_hand
from ashnets.model.rows import Rows
from ashnets.model.tdbn import TdBN, moments


class SpikingLayer(nn.Sequential):
    """conv → tdBN → LIF over (T, B, C, H, W)."""

    def __init__(self, config: AshNetsConfig, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = layer.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False, step_mode="m")
        self.norm = TdBN(outputs, config.tdbn_alpha, config.threshold)
        self.lif = LIF(config.beta, config.threshold, config.surrogate_k, config.detach_reset)

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """Spikes (T, B, C, H, W) to spikes (T, B, C', H', W'); the membrane stays in ``lif.v``."""
        x = self.conv(spikes)
        if _watched(self.norm) or _watched(self.lif) or self.lif.step_mode != "m" or self.lif.store_v_seq:
            return self.lif(self.norm(x)).to(x.dtype)
        rows, norm, lif = Rows(x), self.norm, self.lif
        (v,) = lif.materialize_states((x,), (lif.v,), "m")
        constants = (lif.beta, lif.v_threshold, lif.k, lif.detach_reset)
        currents, v = rows.steps(x), rows.neurons(v)
        if norm.training:
            mean, variance, count = norm.statistics([moments(currents, rows)])
            s, v = _NormalisedLIF.apply(
                currents, norm.weight.float(), norm.bias.float(), v, mean, variance, count, norm.eps, rows,
                norm.sum_over_ranks, constants,
            )  # fmt: skip
        else:
            with at_hand(norm):
                scale, shift = norm.scale_and_shift(norm.running_mean, norm.running_var)
            s, v = _AffineLIF.apply(currents, scale, shift, v, rows, constants)
        lif.v = rows.like_neurons(v)
        return rows.like_steps(s).to(x.dtype)


def _watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


class _NormalisedLIF(torch.autograd.Function):
    """LIF behind tdBN with the statistics of the sequence, with their gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, v: torch.Tensor, mean: torch.Tensor,
        variance: torch.Tensor, count: torch.Tensor, eps: float, rows: Rows, sum_over_ranks: Any, constants: tuple,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        inverse = torch.rsqrt(variance + eps)
        scale = weight * inverse
        shift = bias - mean * scale
        beta, theta, *_ = constants
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, v, scale, shift, mean, inverse, count)
        ctx.rest = (rows, sum_over_ranks, constants)
        return operators.lif_forward(x, v, rows.spread(scale), rows.spread(shift), beta, theta)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_s: torch.Tensor | None, grad_v: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        x, v, scale, shift, mean, inverse, count = ctx.saved_tensors
        rows, sum_over_ranks, constants = ctx.rest
        grad_s = torch.zeros_like(x) if grad_s is None else grad_s
        centre, factor = rows.spread(mean), rows.spread(scale)
        grad, grad_v, total, product = operators.lif_backward(
            x, v, factor, rows.spread(shift), centre, grad_s, grad_v, *constants
        )
        total, product = rows.total(total), rows.total(product)
        grad_weight, grad_bias = (product * inverse).to(scale.dtype), total.to(scale.dtype)
        if ctx.needs_input_grad[0]:
            mean_total, mean_product = sum_over_ranks(torch.stack([total, product])) / count
            operators.norm_backward(
                grad, x, centre, factor, rows.spread(mean_total.float()),
                rows.spread((scale * inverse.square() * mean_product).float()),
            )  # fmt: skip
        return grad, grad_weight, grad_bias, grad_v, None, None, None, None, None, None, None


class _AffineLIF(torch.autograd.Function):
    """LIF behind a fixed affine map of each channel."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, v: torch.Tensor, rows: Rows,
        constants: tuple,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scale, shift, v)
        ctx.rest = (rows, constants)
        beta, theta, *_ = constants
        return operators.lif_forward(x, v, rows.spread(scale), rows.spread(shift), beta, theta)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_s: torch.Tensor | None, grad_v: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        x, scale, shift, v = ctx.saved_tensors
        rows, constants = ctx.rest
        grad_s = torch.zeros_like(x) if grad_s is None else grad_s
        spread = rows.spread(scale)
        grad, grad_v, total, product = operators.lif_backward(
            x, v, spread, rows.spread(shift), torch.zeros_like(spread), grad_s, grad_v, *constants
        )
        grad_x = grad.mul_(spread) if ctx.needs_input_grad[0] else None
        return grad_x, rows.total(product).to(scale.dtype), rows.total(total).to(scale.dtype), grad_v, None, None
