r"""A spiking layer in integers, as Loihi and similar neuromorphic chips compute it, with gradients for training.

A convolution with folded tdBN (W' = γ·W/√(σ² + ε), b' = β_bn − μ·γ/√(σ² + ε)) becomes integers with one step size s:

    s = max|W'|/254      W_int = 2·clip(round(W'/2s), −128, 127)      b_int = clip(round(b'/s), ±4096)
    vThMant = round(θ/s) < 2¹⁷                                        vDecay = k,  β = 1 − k/4096

The membrane of its neurons has 24 bits and the unit s/64; it decays with truncation toward zero:

    u[t] = a[t] << 6,  wrapped at 24 bits,        a = W_int ∗ s[t]    (iDecay 4096: the current has no memory)
    h[t] = clip(trunc(v[t−1]·(4096 − k)/4096) + u[t] + (b_int << 6), ±(2²³ − 1))
    s'[t] = H(h[t] − (vThMant << 6)),  strictly above
    v[t] = h[t]·(1 − s'[t])

This is the recursion of lava-dl's netx (neuron groups CUBA and LOIHI). The gradient is straight-through: rounding and
truncation count as the identity, the step s as a constant, clipped values have gradient 0, and everything else is the
float neuron's adjoint (:mod:`ashnets.model.neuron`) at the membrane h·s/64. Integers are stored in float32, which
represents all 24-bit integers exactly. The recursion runs as a kernel that stores only a for the backward pass
(:mod:`ashnets.kernels.integer_reference`).
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

CURRENT_LIMIT = 1 << 17  # |a| is below it, so that a << 6 fits 24 bits
BIAS_LIMIT = 4096


@dataclass(frozen=True)
class IntegerConstants:
    """One spiking layer as a chip stores it.

    Attributes:
        weight: W_int, (O, I/groups, kH, kW), int32, even numbers in −256..254.
        bias: b_int, (O,), int32, within ±4096.
        threshold: vThMant, in units of s.
        decay: vDecay, k of β = 1 − k/4096.
        step: s, the value of one unit of ``weight``, ``bias`` and ``threshold``.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    threshold: int
    decay: int
    step: float


class Integers(NamedTuple):
    """The same as float64 tensors on the weights' device, unchecked: the result of :func:`integers`."""

    weight: torch.Tensor
    bias: torch.Tensor
    threshold: torch.Tensor
    step: torch.Tensor


def integers(weight: torch.Tensor, bias: torch.Tensor, theta: float) -> Integers:
    """W_int, b_int, vThMant and s of W' and b', without gradient; :func:`check` tests whether they fit a chip.

    Args:
        weight: W', (O, I/groups, kH, kW), with folded tdBN; converted to float64.
        bias: b', (O,).
        theta: θ, converted to float32, as in the neutral graph.
    """
    weight, bias = weight.detach().double(), bias.detach().double()
    step = weight.abs().max() / 254
    return Integers(
        weight=weight.div(2 * step).round().clamp(-128, 127).mul(2),
        bias=bias.div(step).round().clamp(-BIAS_LIMIT, BIAS_LIMIT),
        # not in float64: the float32 of the exported graph must round to the same integer
        threshold=torch.tensor(theta, dtype=torch.float32, device=step.device).double().div(step).round(),
        step=step,
    )


def check(found: Integers, bias: torch.Tensor, theta: float) -> None:
    """Raise for values that a chip cannot store; ``found`` was made from ``bias`` and ``theta``.

    Raises:
        ConfigurationError: the weights are not finite or all zero, the threshold has 2¹⁷ steps or more, or the sum of
            the weights over the inputs could exceed the 24 bits of a current.
    """
    # every partial sum, in any order, lies in [Σ negative weights, Σ positive weights]
    rows = found.weight.flatten(1)
    worst = torch.maximum(rows.clamp_min(0).sum(1), rows.clamp_max(0).sum(1).abs()).max()
    finite = torch.isfinite(bias.detach()).all() & torch.isfinite(found.step)
    step, threshold, largest, is_finite = torch.stack([found.step, found.threshold, worst, finite]).tolist()
    if step == 0:
        raise ConfigurationError(
            "all folded weights of a layer are 0, so integers have no scale: train the layer or load other weights"
        )
    if not is_finite:
        raise ConfigurationError(
            "a folded weight is not finite: the checkpoint or its running statistics are damaged; use another one"
        )
    if threshold >= CURRENT_LIMIT:
        raise ConfigurationError(
            f"θ={theta:g} is {threshold:.0f} steps of {step:.3g} (1/254 of the layer's largest folded weight), but a "
            f"chip's threshold must be below {CURRENT_LIMIT}: the weights are too small compared with θ; calibrate the "
            "running statistics, or choose a smaller threshold"
        )
    if largest >= CURRENT_LIMIT:
        raise ConfigurationError(
            f"the integer weights of one neuron can add up to {largest:.0f}, but a current must be below "
            f"{CURRENT_LIMIT}: with {rows.shape[1]} inputs per neuron, most weights must be smaller compared with the "
            "layer's largest; use fewer channels, or a weight decay that leaves a few large weights"
        )


def integer_constants(weight: torch.Tensor, bias: torch.Tensor, theta: float, decay_k: int) -> IntegerConstants:
    """The integers of a layer, checked.

    Args:
        weight, bias, theta: as in :func:`integers`.
        decay_k: k of β = 1 − k/4096.

    Raises:
        ConfigurationError: as in :func:`check`, or a decay outside 0..4096.
    """
    if not 0 <= decay_k <= DECAY_ONE:
        raise ConfigurationError(f"decay_k={decay_k} must be in 0..{DECAY_ONE}: a decay has 12 bits")
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
    """W_int and b_int in float32. Their derivatives with respect to W' and b' are 1/s, or 0 where clipped.

    Args:
        weight, bias: W' and b', in float64, from which ``found`` was made.
    """
    if not (weight.requires_grad or bias.requires_grad):
        return found.weight.float(), found.bias.float()
    scaled_weight, scaled_bias = weight / found.step, bias / found.step
    # max|W'| is 127 steps of 2s: weights are never clipped, biases may be
    inside = scaled_bias.detach().round().abs() <= BIAS_LIMIT
    # x − x.detach() is exactly 0 and has the gradient of x
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
        current: a, (T, ...), integers in any type; floats are rounded, so that an inexact convolution does not matter.
        v: membrane before the first step, (...), integers within ±(2²³ − 1) in any type.
        bias: b_int, of a shape that broadcasts to that of ``v``.
        threshold: vThMant.
        decay: k of β = 1 − k/4096.
        step: s, used only for the gradient: the float membrane is v·s/64.
        k: steepness of the surrogate derivative with respect to the float membrane.
        detach_reset: cut the gradient through the reset.

    Returns:
        Spikes (T, ...) of 0 and 1 in the type of ``current``, and the membrane after the last step, (...), integers
        in float32.

    Raises:
        InputError: there is no step, or ``v`` does not have the shape of a step.
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
        return integer_operators.lif_forward(a, v, bias, threshold, decay)  # (T, N), (N,)

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
