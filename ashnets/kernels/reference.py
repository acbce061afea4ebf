r"""Definition of the kernels in plain torch; the fast kernels are tested against it.

Leaky integrate-and-fire neurons (eq. 2, 3) after an affine map, over a sequence with explicit state:

    y[t] = x[t]·a + c                        a, c of each neuron: a folded normalization; without one y = x
    h[t] = β·v[t−1] + y[t]
    s[t] = H(h[t] − θ),  strictly above
    v[t] = h[t]·(1 − s[t])

The adjoint, with σ'(d) = (k/2)·sech²(k·d) in place of H' and ḡ for the gradient of a loss with respect to g:

    ȳ[t] = h̄[t] = σ'(h[t] − θ)·(s̄[t] − [h[t]·v̄[t]]) + v̄[t]·(1 − s[t])       [·]: only if the reset is not detached
    v̄[t−1] = β·h̄[t]

Every function takes contiguous (T, N) tensors, float32 or float64; a vector has one value for each of the N neurons.
"""

from __future__ import annotations

import torch

TYPES = (torch.float32, torch.float64)
Vector = torch.Tensor | None


def surrogate_derivative(distance: torch.Tensor, k: float) -> torch.Tensor:
    """(k/2)·sech²(k·(h − θ)) for ``distance`` = h − θ."""
    return (k / 2) * (1 - torch.tanh(k * distance).square())


def _currents(x: torch.Tensor, scale: Vector, shift: Vector) -> torch.Tensor:
    # Not addcmul, nor add(…, alpha=β) below: they fuse and round once, unlike the other kernels and the exports.
    return x if scale is None or shift is None else x * scale + shift


def lif_forward(
    x: torch.Tensor, v: torch.Tensor, scale: Vector, shift: Vector, beta: float, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes (T, N) and the membrane after the last step (N,)."""
    spikes = []
    for current in x.unbind(0):
        h = beta * v + _currents(current, scale, shift)
        fired = h > theta
        v = torch.where(fired, 0.0, h)
        spikes.append(fired)
    return torch.stack(spikes).to(x.dtype), v


def lif_backward(
    x: torch.Tensor,
    v: torch.Tensor,
    scale: Vector,
    shift: Vector,
    mean: Vector,
    grad_s: torch.Tensor,
    grad_v: torch.Tensor,
    beta: float,
    theta: float,
    k: float,
    detach: bool,
) -> tuple[torch.Tensor, torch.Tensor, Vector, Vector]:
    """ȳ (T, N), v̄ of the first membrane (N,), and with ``mean`` Σ_t ȳ and Σ_t ȳ·(x − mean), (N,) each, else None."""
    h = torch.empty_like(x)
    for t, current in enumerate(x.unbind(0)):
        h[t] = beta * v + _currents(current, scale, shift)
        v = h[t].masked_fill(h[t] > theta, 0.0)
    grad_y = torch.empty_like(x)
    for t in range(x.shape[0] - 1, -1, -1):
        through = grad_s[t] if detach else grad_s[t] - grad_v * h[t]
        grad_y[t] = surrogate_derivative(h[t] - theta, k) * through + grad_v.masked_fill(h[t] > theta, 0.0)
        grad_v = beta * grad_y[t]
    if mean is None:
        return grad_y, grad_v, None, None
    return grad_y, grad_v, grad_y.sum(0), (grad_y * (x - mean)).sum(0)


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over T of each neuron and the sum of squared distances from it, (N,) each."""
    mean = x.mean(0)
    return mean, (x - mean).square().sum(0)


def norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    factor: torch.Tensor,
    grad_mean: torch.Tensor,
    product: torch.Tensor,
) -> None:
    """``grad`` becomes factor·(grad − grad_mean) − product·(x − mean), in place."""
    grad.sub_(grad_mean).mul_(factor).sub_((x - mean).mul_(product))
