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
(:mod:`ashnets.model.neuron`) at the membrane h·s/64. Integers travel in float32, which holds all of 24 bits; the
recursion runs as a kernel that keeps a alone for the backward pass (:mod:`ashnets.kernels.integer_reference`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from ashnets.errors import ConfigurationError
from ashnets.kernels import integer_operators
from ashnets.kernels.integer_reference import BIT, DECAY_ONE, MEMBRANE_LIMIT
from ashnets.model.rows import Rows

__all__ = [
    "BIAS_LIMIT",
    "BIT",
    "CURRENT_LIMIT",
    "DECAY_ONE",
    "MEMBRANE_LIMIT",
    "IntegerConstants",
    "Integers",
    "check",
    "integer_constants",
    "integer_lif",
    "integers",
    "straight_through",
]

CURRENT_LIMIT = 1 << 17  # |a| below it, so that a << 6 keeps to 24 bits
BIAS_LIMIT = 4096


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
    if not (weight.requires_grad or bias.requires_grad):
        return found.weight.float(), found.bias.float()
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

    Raises:
        InputError: no step, or ``v`` is not of a step's shape.
    """
    rows, device = Rows(current), current.device
    threshold, step = (torch.as_tensor(one, dtype=torch.float64, device=device) for one in (threshold, step))
    biases = rows.neurons(bias.float().expand(v.shape))
    spikes, last = _IntegerLIF.apply(
        rows.steps(current), rows.neurons(v.float()), biases, threshold, decay, step, k, detach_reset
    )
    return rows.like_steps(spikes), rows.like_neurons(last)


class _IntegerLIF(torch.autograd.Function):
    """(T, N) currents, (N,) membranes and biases."""

    @staticmethod
    def forward(
        ctx: Any,
        a: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor,
        threshold: torch.Tensor,
        decay: int,
        step: torch.Tensor,
        k: float,
        detach_reset: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a, v, bias, threshold, step)
        ctx.constants = (decay, k, detach_reset)
        return integer_operators.lif_forward(a, v, bias, threshold, decay)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: torch.Tensor | None, grad_v: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        a, v, bias, threshold, step = ctx.saved_tensors
        decay, k, detach_reset = ctx.constants
        grad_s = torch.zeros_like(a) if grad_s is None else grad_s
        grad_a, grad_v, grad_bias = integer_operators.lif_backward(
            a, v, bias, threshold, decay, step, grad_s, grad_v, k, detach_reset
        )
        return grad_a, grad_v, grad_bias, None, None, None, None, None
