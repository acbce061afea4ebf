r"""Leaky integrate-and-fire neuron (eq. 2, 3), as a pure function and as a spikingjelly module.

    h[t] = β·v[t−1] + x[t]
    s[t] = H(h[t] − θ),  strictly above the threshold
    v[t] = h[t]·(1 − s[t]),  a hard reset to 0 on a spike only

The backward pass replaces H' by the derivative of (1 + tanh(k·(h − θ)))/2, which is (k/2)·sech²(k·(h − θ)). It stores
only x and recomputes the membrane (``ashnets.kernels``).
"""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch.autograd.function import once_differentiable

from ashnets.kernels import operators
from ashnets.kernels.reference import surrogate_derivative
from ashnets.model.rows import Rows

__all__ = ["LIF", "lif", "surrogate_derivative"]


def lif(
    x: torch.Tensor, v: torch.Tensor, beta: float, theta: float, k: float, detach_reset: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run LIF neurons over a sequence with explicit state.

    Args:
        x: input current, (T, ...), any float type. bfloat16, and float16 on a GPU, are read without conversion; other
            types are first converted to float32. The arithmetic is always float32.
        v: membrane before the first step, (...), float32.
        beta: β in [0, 1), the share of the membrane kept at each step.
        theta: θ, the firing threshold.
        k: steepness of the surrogate derivative.
        detach_reset: cut the gradient through the reset.

    Returns:
        Spikes (T, ...) of 0 and 1 in the type of ``x``, and the membrane after the last step, (...), float32.

    Raises:
        InputError: there is no step, or ``v`` does not have the shape of a step.
    """
    rows = Rows(x)
    currents = x if x.dtype in (torch.float32, torch.bfloat16, torch.float16) else x.float()
    spikes, last = _LIF.apply(rows.steps(currents), rows.neurons(v.float()), beta, theta, k, detach_reset)
    return rows.like_steps(spikes).to(x.dtype), rows.like_neurons(last)


class _LIF(torch.autograd.Function):
    """(T, N) currents and (N,) membranes."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, v: torch.Tensor, beta: float, theta: float, k: float, detach_reset: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, v)
        ctx.constants = (beta, theta, k, detach_reset)
        return operators.lif_forward(x, v, None, None, beta, theta)  # (T, N), (N,)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: torch.Tensor | None, grad_v: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, v = ctx.saved_tensors
        grad_s = torch.zeros_like(x) if grad_s is None else grad_s
        grad_x, grad_v, *_ = operators.lif_backward(x, v, None, None, None, grad_s, grad_v, *ctx.constants)
        return grad_x, grad_v, None, None, None, None


class LIF(neuron.LIFNode):
    """LIF as a spikingjelly neuron, for its ``reset_net``, monitors, counters and NIR export.

    spikingjelly's own node fires at h ≥ θ. This one fires strictly above θ, as Loihi, NIR and ONNX do.

    Args:
        beta, theta, k, detach_reset: as in :func:`lif`. τ = 1/(1 − β), without decay of the input.

    Shape: input and output (T, B, ...); in step mode ``s`` one step, (B, ...).
    """

    def __init__(self, beta: float, theta: float, k: float, detach_reset: bool = True) -> None:
        super().__init__(
            # β = 0 means τ = 1, which the parent class refuses: it is set below.
            tau=1 / (1 - beta) if beta > 0 else 2.0,
            decay_input=False,
            v_threshold=float(theta),
            v_reset=0.0,
            surrogate_function=surrogate.Sigmoid(alpha=2 * k),
            detach_reset=detach_reset,
            step_mode="m",
        )
        self.tau = 1 / (1 - beta)
        self.beta = beta
        self.k = k

    def materialize_states(self, inputs, states, step_mode):
        """The membrane stays float32 for currents of any type."""
        like = inputs[0][0] if step_mode == "m" else inputs[0]
        v = states[0]
        if not isinstance(v, torch.Tensor) or v.shape != like.shape:
            v = torch.zeros(like.shape, dtype=torch.float32, device=like.device)
        return (v.to(device=like.device, dtype=torch.float32),)

    def single_step_functional_forward(self, inputs, states, **kwargs):
        spikes, states = self.multi_step_functional_forward((inputs[0].unsqueeze(0),), states)
        return (spikes[0].squeeze(0),), states  # (...), (...)

    def multi_step_functional_forward(self, inputs, states, **kwargs):
        spikes, v = lif(inputs[0], states[0], self.beta, self.v_threshold, self.k, self.detach_reset)
        return (spikes,), (v,)  # (T, ...), (...)
