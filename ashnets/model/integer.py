r"""A spiking layer in integers: what a neuromorphic chip of Loihi's kind computes, and how to train through it.

A convolution with tdBN folded into it (W' = γ·W/√(σ² + ε), b' = β_bn − μ·γ/√(σ² + ε)) becomes integers of one step s:

    s = max|W'|/254      W_int = 2·clip(round(W'/2s), −128, 127)      b_int = clip(round(b'/s), ±4096)
    vThMant = round(θ/s) < 2¹⁷                                        vDecay = k,  β = 1 − k/4096

and its neurons, whose membrane has 24 bits and a unit of s/64, decay with truncation toward zero:

    u[t] = a[t] << 6,  wrapped at 24 bits,        a = W_int ∗ s[t]    (iDecay 4096: the current has no memory)
    h[t] = clip(trunc(v[t−1]·(4096 − k)/4096) + u[t] + (b_int << 6), ±(2²³ − 1))
    s'[t] = H(h[t] − (vThMant << 6)),  strictly above
    v[t] = h[t]·(1 − s'[t])

This is the recursion of lava-dl's netx (neuron groups CUBA and LOIHI). The gradient is straight-through: rounding,
truncation and the step s count as constants, clipped values pass nothing, and the rest is the float neuron's adjoint
(:mod:`ashnets.model.neuron`) at the membrane h·s/64. Integers travel in float32, which holds all of 24 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from ashnets.errors import ConfigurationError
from ashnets.model.neuron import surrogate_derivative

BIT = 1 << 6  # currents, biases and thresholds stand 6 bits above the membrane's unit
MEMBRANE_LIMIT = (1 << 23) - 1
CURRENT_LIMIT = 1 << 17  # |a| below it, so that a << 6 keeps to 24 bits
BIAS_LIMIT = 4096
DECAY_ONE = 4096


@dataclass(frozen=True)
class IntegerConstants:
    """One spiking layer as a chip holds it.

    Attributes:
        weight: W_int, (O, I/groups, kH, kW), int32, even numbers in −256..254.
        bias: b_int, (O,), int32, within ±4096.
        threshold: vThMant, in units of s.
        decay: vDecay, k of β = 1 − k/4096.
        step: s, the weight that one unit of ``weight``, ``bias`` and ``threshold`` stands for.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    threshold: int
    decay: int
    step: float


class Integers(NamedTuple):
    """The same as tensors on the weights' device, float64, unchecked: what :func:`integers` gives."""

    weight: torch.Tensor
    bias: torch.Tensor
    threshold: torch.Tensor
    step: torch.Tensor


def integers(weight: torch.Tensor, bias: torch.Tensor, theta: float) -> Integers:
    """W_int, b_int, vThMant and s of W' and b', without gradient; :func:`check` says whether a chip can hold them.

    Args:
        weight: W', (O, I/groups, kH, kW), with tdBN folded in; taken in float64.
        bias: b', (O,).
        theta: θ, taken as a float32, as the neutral graph holds it.
    """
    weight, bias = weight.detach().double(), bias.detach().double()
    step = weight.abs().max() / 254
    return Integers(
        weight=weight.div(2 * step).round().clamp(-128, 127).mul(2),
        bias=bias.div(step).round().clamp(-BIAS_LIMIT, BIAS_LIMIT),
        # not θ in float64: the exported graph's float32 must round to the same integer
        threshold=torch.tensor(theta, dtype=torch.float32, device=step.device).double().div(step).round(),
        step=step,
    )


def check(found: Integers, bias: torch.Tensor, theta: float) -> None:
    """Refuse what a chip cannot hold; ``bias`` and ``theta`` are those that ``found`` was made from.

    Raises:
        ConfigurationError: weights that are not finite or all zero, a threshold of 2¹⁷ steps or more, or weights whose
            sum over the inputs could leave the 24 bits of a current.
    """
    # no partial sum, in whatever order, leaves [Σ negative weights, Σ positive weights]
    rows = found.weight.flatten(1)
    worst = torch.maximum(rows.clamp_min(0).sum(1), rows.clamp_max(0).sum(1).abs()).max()
    finite = torch.isfinite(bias.detach()).all() & torch.isfinite(found.step)
    step, threshold, largest, is_finite = torch.stack([found.step, found.threshold, worst, finite]).tolist()
    if step == 0:
        raise ConfigurationError("all folded weights of a layer are 0: there is no scale to hold them in integers")
    if not is_finite:
        raise ConfigurationError("a folded weight is not finite: the checkpoint or its running statistics are damaged")
    if threshold >= CURRENT_LIMIT:
        raise ConfigurationError(
            f"θ={theta:g} is {threshold:.0f} steps of {step:.3g}, the 254th part of the layer's largest folded weight, "
            f"and a chip's threshold stays below {CURRENT_LIMIT}: the weights are too small beside θ; calibrate the "
            "running statistics, or choose a smaller threshold"
        )
    if largest >= CURRENT_LIMIT:
        raise ConfigurationError(
            f"the integer weights of one neuron can add up to {largest:.0f}, and a current stays below "
            f"{CURRENT_LIMIT}: with {rows.shape[1]} inputs a neuron, most weights must be smaller beside the layer's "
            "largest; use fewer channels, or decay the weights less evenly"
        )


def integer_constants(weight: torch.Tensor, bias: torch.Tensor, theta: float, decay_k: int) -> IntegerConstants:
    """The integers of a layer, checked.

    Args:
        weight, bias, theta: as in :func:`integers`.
        decay_k: k of β = 1 − k/4096.

    Raises:
        ConfigurationError: what :func:`check` refuses, or a decay outside 0..4096.
    """
    if not 0 <= decay_k <= DECAY_ONE:
        raise ConfigurationError(f"decay_k={decay_k} must lie in 0..{DECAY_ONE}: a 12-bit decay")
    found = integers(weight, bias, theta)
    check(found, bias, theta)
    return IntegerConstants(
        weight=found.weight.to(torch.int32),
        bias=found.bias.to(torch.int32),
        threshold=int(found.threshold),
        decay=int(decay_k),
        step=float(found.step),
    )


def straight_through(weight: torch.Tensor, bias: torch.Tensor, found: Integers) -> tuple[torch.Tensor, torch.Tensor]:
    """W_int and b_int in float32, with the derivatives 1/s by W' and b', 0 where they were clipped.

    Args:
        weight, bias: W' and b', in float64, from which ``found`` was made.
    """
    scaled_weight, scaled_bias = weight / found.step, bias / found.step
    # max|W'| is 127 of the steps 2s: weights reach neither limit, biases may
    inside = scaled_bias.detach().round().abs() <= BIAS_LIMIT
    # x − x is 0 to the bit, and has x's gradient
    return (
        (found.weight + (scaled_weight - scaled_weight.detach())).float(),
        (found.bias + (scaled_bias - scaled_bias.detach()) * inside).float(),
    )


def integer_lif(
    current: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor,
    threshold: int | torch.Tensor,
    decay: int,
    step: float | torch.Tensor,
    k: float,
    detach_reset: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run integer LIF neurons over a sequence with explicit state.

    Args:
        current: a, (T, ...), integers in any type; a float is rounded, so that an unexact convolution does no harm.
        v: membrane before the first step, (...), integers within ±(2²³ − 1) in any type.
        bias: b_int, of a shape that broadcasts to that of ``v``.
        threshold: vThMant.
        decay: k of β = 1 − k/4096.
        step: s, for the gradient alone: the float membrane is v·s/64.
        k: steepness of the surrogate derivative, by the float membrane.
        detach_reset: cut the gradient through the reset.

    Returns:
        Spikes (T, ...) of 0 and 1 in the type of ``current``, and the membrane after the last step, (...), integers
        in float32.
    """
    if torch.is_grad_enabled() and (current.requires_grad or v.requires_grad or bias.requires_grad):
        return _IntegerLIF.apply(current, v, bias, threshold, decay, step, k, detach_reset)
    membrane, offset = v.to(torch.float64, copy=True), _shifted(bias)
    spikes = []
    for a in current.unbind(0):
        _advance(membrane, a, offset, decay)
        fired = membrane > (threshold * BIT)
        membrane.masked_fill_(fired, 0)
        spikes.append(fired)
    return torch.stack(spikes).to(current.dtype), membrane.float()


def _shifted(bias: torch.Tensor) -> torch.Tensor:
    return bias.double() * BIT


def _advance(v: torch.Tensor, a: torch.Tensor, offset: torch.Tensor, decay: int) -> None:
    """v[t−1] to h[t], in place; float64 holds the product's 36 bits."""
    # the low 18 bits of a with their sign, six places up: what is left of a << 6 in 24 bits
    u = (a.round() if a.is_floating_point() else a).to(torch.int32) << 14 >> 8
    v.mul_((DECAY_ONE - decay) / DECAY_ONE).trunc_().add_(u).add_(offset).clamp_(-MEMBRANE_LIMIT, MEMBRANE_LIMIT)


class _IntegerLIF(torch.autograd.Function):
    """The same forward, and the straight-through adjoint by hand."""

    @staticmethod
    def forward(
        ctx: Any, current: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, threshold: int | torch.Tensor, decay: int,
        step: float | torch.Tensor, k: float, detach_reset: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        h = torch.empty_like(current, dtype=torch.float32)
        spikes = torch.empty_like(current)
        membrane, offset = v.to(torch.float64, copy=True), _shifted(bias)
        for t in range(current.shape[0]):
            _advance(membrane, current[t], offset, decay)
            fired = membrane > (threshold * BIT)
            h[t] = membrane
            spikes[t] = fired
            membrane.masked_fill_(fired, 0)
        ctx.save_for_backward(h)
        ctx.constants = (threshold, decay, step, k, detach_reset, current.dtype, bias.shape)
        return spikes, membrane.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: torch.Tensor, grad_v: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (h,) = ctx.saved_tensors
        threshold, decay, step, k, detach_reset, dtype, bias_shape = ctx.constants
        beta, unit, bar = 1 - decay / DECAY_ONE, step / BIT, threshold * BIT
        grad_current = torch.empty_like(h, dtype=dtype)
        grad_bias = torch.zeros(h.shape[1:], dtype=torch.float32, device=h.device)
        grad_v = grad_v.float() / unit  # by the float membrane from here on
        for t in range(h.shape[0] - 1, -1, -1):
            slope = surrogate_derivative((h[t] - bar) * unit, k)
            through_spike = grad_spikes[t] if detach_reset else grad_spikes[t] - grad_v * (h[t] * unit)
            grad_h = slope.mul_(through_spike).add_(grad_v.masked_fill(h[t] > bar, 0.0))
            grad_h.masked_fill_(h[t].abs() >= MEMBRANE_LIMIT, 0.0)
            by_unit = grad_h * step  # x = s·(a + b_int) and v = s/64·v_int
            grad_current[t] = by_unit
            grad_bias += by_unit
            grad_v = grad_h.mul_(beta)
        return grad_current, grad_v * unit, grad_bias.sum_to_size(bias_shape), None, None, None, None, None
