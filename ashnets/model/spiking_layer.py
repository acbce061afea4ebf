r"""One layer of the abstract encoder: convolution, tdBN and LIF neurons over (T, B, C, H, W).

The three are spikingjelly modules, and each can be monitored. If none is monitored, a call leaves no state on them
(:meth:`SpikingLayer.run`), so that threads may share a model, and tdBN and LIF run as one kernel. With normalized
currents y = a·x + c, a = γ/√(σ² + ε), c = β_bn − a·μ, neither y nor h is written to memory. The gradient passes
through the statistics as

    x̄ = a·(ȳ − Σȳ/n) − a/(σ² + ε)·(x − μ)·Σȳ(x − μ)/n,      γ̄ = Σȳ(x − μ)/√(σ² + ε),      β̄_bn = Σȳ
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:

    class Conv2d(nn.Conv2d):
        """spikingjelly's convolution, whose settings are always pairs."""

        kernel_size: tuple[int, int]
        stride: tuple[int, int]
        padding: tuple[int, int]
        dilation: tuple[int, int]


Constants = tuple[float, float, float, bool]  # β, θ, k, detach_reset


class SpikingLayer(nn.Sequential):
    """conv → tdBN → LIF over (T, B, C, H, W)."""

    conv: Conv2d
    norm: TdBN
    lif: LIF

    def __init__(self, config: AshNetsConfig, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = layer.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False, step_mode="m")
        self.norm = TdBN(outputs, config.tdbn_alpha, config.threshold)
        self.lif = LIF(config.beta, config.threshold, config.surrogate_k, config.detach_reset)

    @property
    def driven(self) -> bool:
        """Whether a spikingjelly tool monitors or drives a module: they then run one by one and keep state."""
        modules: tuple[nn.Module, ...] = (self, self.norm, self.lif)
        return any(map(_hooked, modules)) or self.lif.step_mode != "m" or self.lif.store_v_seq

    def run(self, spikes: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run from an explicit membrane; no module keeps state, unless :attr:`driven`.

        Args:
            spikes: (T, B, C, H, W), 0 and 1.
            v: membrane before the first step, (B, C', H', W').

        Returns:
            Spikes (T, B, C', H', W') and the membrane after the last step, (B, C', H', W').
        """
        if not self.driven:
            return self(spikes, v)
        self.lif.reset()
        self.lif.v = v
        spikes, v = self(spikes), self.lif.v
        self.lif.v = v.detach().clone()  # for monitors; only the returned membrane carries the gradient
        return spikes, v

    def forward(
        self, spikes: torch.Tensor, v: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Spikes (T, B, C, H, W) to spikes (T, B, C', H', W'); the membrane is read from ``lif.v`` and stored there.

        With ``v``, arguments and results are those of :meth:`run`.
        """
        x = self.conv(spikes)  # (T, B, C', H', W')
        if v is not None:
            return self._fused(x, v)
        if self.driven:
            return self.lif(self.norm(x)).to(x.dtype)  # (T, B, C', H', W')
        (v,) = self.lif.materialize_states((x,), (self.lif.v,), "m")  # (B, C', H', W')
        spikes, self.lif.v = self._fused(x, v)
        return spikes  # (T, B, C', H', W')

    def _fused(self, x: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """tdBN and LIF as one kernel: currents (T, B, C, H, W) and membranes to spikes and membranes."""
        norm, lif = self.norm, self.lif
        constants: Constants = (lif.beta, lif.v_threshold, lif.k, lif.detach_reset)
        v = v.to(x.device, torch.float32)
        if norm.training:
            rows = Rows(x)
            mean, variance, count = norm.statistics([moments(rows.steps(x), rows)])
            s, v = _NormalizedLIF.apply(
                x,
                norm.weight.float(),
                norm.bias.float(),
                v,
                mean,
                variance,
                count,
                norm.eps,
                norm.sum_over_ranks,
                constants,
            )
        else:
            with at_hand(norm):
                scale, shift = norm.scale_and_shift(norm.running_mean, norm.running_var)  # (C,)
            s, v = _AffineLIF.apply(x, scale, shift, v, constants)
        return s.to(x.dtype), v


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


class _NormalizedLIF(torch.autograd.Function):
    """LIF after tdBN with the statistics of the sequence; the gradient passes through them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        v: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        count: torch.Tensor,
        eps: float,
        sum_over_ranks: Callable[[torch.Tensor], torch.Tensor],
        constants: Constants,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inverse = torch.rsqrt(variance + eps)  # (C,)
        scale = weight * inverse  # (C,)
        shift = bias - mean * scale  # (C,)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, v, scale, shift, mean, inverse, count)
        ctx.rest = (sum_over_ranks, constants)
        return _forward(x, v, scale, shift, constants)  # (T, B, C, H, W), (B, C, H, W)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: torch.Tensor | None, grad_v: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, v, scale, shift, mean, inverse, count = ctx.saved_tensors
        sum_over_ranks, constants = ctx.rest
        rows = Rows(x)
        grad, grad_v, total, product = _backward(rows, x, v, scale, shift, mean, grad_s, grad_v, constants)
        grad_weight, grad_bias = (product * inverse).to(scale.dtype), total.to(scale.dtype)
        if ctx.needs_input_grad[0]:
            mean_total, mean_product = sum_over_ranks(torch.stack([total, product])) / count
            operators.norm_backward(
                grad,
                rows.steps(x),
                rows.spread(mean),
                rows.spread(scale),
                rows.spread(mean_total.float()),
                rows.spread((scale * inverse.square() * mean_product).float()),
            )
        return rows.like_steps(grad), grad_weight, grad_bias, grad_v, None, None, None, None, None, None


class _AffineLIF(torch.autograd.Function):
    """LIF after a fixed affine map of each channel."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, v: torch.Tensor, constants: Constants
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scale, shift, v)
        ctx.constants = constants
        return _forward(x, v, scale, shift, constants)  # (T, B, C, H, W), (B, C, H, W)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: torch.Tensor | None, grad_v: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, scale, shift, v = ctx.saved_tensors
        rows = Rows(x)
        nothing = torch.zeros_like(scale)
        grad, grad_v, total, product = _backward(rows, x, v, scale, shift, nothing, grad_s, grad_v, ctx.constants)
        grad_x = rows.like_steps(grad.mul_(rows.spread(scale))) if ctx.needs_input_grad[0] else None
        return grad_x, product.to(scale.dtype), total.to(scale.dtype), grad_v, None


def _forward(
    x: torch.Tensor, v: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, constants: Constants
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, (beta, theta, *_) = Rows(x), constants
    spikes, last = operators.lif_forward(
        rows.steps(x), rows.neurons(v), rows.spread(scale), rows.spread(shift), beta, theta
    )  # (T, N), (N,)
    return rows.like_steps(spikes), rows.like_neurons(last)


def _backward(
    rows: Rows,
    x: torch.Tensor,
    v: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    mean: torch.Tensor,
    grad_s: torch.Tensor | None,
    grad_v: torch.Tensor | None,
    constants: Constants,
) -> tuple[torch.Tensor, ...]:
    """ȳ as rows (T, N), the gradient of v, and Σȳ and Σȳ(x − μ) of each channel, (C,) each."""
    currents = rows.steps(x)
    grad, before, total, product = operators.lif_backward(
        currents,
        rows.neurons(v),
        rows.spread(scale),
        rows.spread(shift),
        rows.spread(mean),
        torch.zeros_like(currents) if grad_s is None else rows.steps(grad_s),
        None if grad_v is None else rows.neurons(grad_v),
        *constants,
    )
    return grad, rows.like_neurons(before), rows.total(total), rows.total(product)
