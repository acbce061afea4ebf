r"""Definition of the integer kernels in plain torch; the fast kernels are tested against it.

Loihi-type neurons (:mod:`ashnets.model.integer`) over a sequence with explicit state, m = 4096 − vDecay:

    u[t] = a[t] << 6, wrapped at 24 bits
    h[t] = clip(trunc(v[t−1]·m/4096) + u[t] + (b << 6), ±(2²³ − 1))
    s[t] = H(h[t] − (vThMant << 6)),  strictly above
    v[t] = h[t]·(1 − s[t])

The adjoint is that of the float neuron (:mod:`ashnets.kernels.reference`) at the membrane h·q, where q = s/64 and s is
the layer's step. Rounding and truncation count as the identity, and the gradient of a clipped membrane is 0:

    h̄[t] = σ'((h[t] − (vThMant << 6))·q)·(s̄[t] − [h[t]·q·v̄[t]]) + v̄[t]·(1 − s[t]),  0 where |h[t]| = 2²³ − 1
    ā[t] = s·h̄[t],      b̄ = Σ_t s·h̄[t],      v̄[t−1] = m/4096·h̄[t]           v̄ by v·q; at both ends by v

a is (T, N); v and b are (N,). v and b are integers in float32, which represents all 24-bit integers; thresholds and
steps are scalar tensors, so that a traced program does not read their values.
"""

from __future__ import annotations

import torch

from ashnets.kernels.reference import surrogate_derivative

BIT = 1 << 6
MEMBRANE_LIMIT = (1 << 23) - 1
DECAY_ONE = 4096


def _advance(v: torch.Tensor, a: torch.Tensor, offset: torch.Tensor, decay: int) -> torch.Tensor:
    """v[t−1] to h[t]; float64 represents the 36 bits of the product."""
    # the low 18 bits of a with sign, shifted left by 6: a << 6 wrapped at 24 bits
    u = (a.round() if a.is_floating_point() else a).to(torch.int32) << 14 >> 8
    kept = (v * ((DECAY_ONE - decay) / DECAY_ONE)).trunc()
    return kept.add(u).add(offset).clamp(-MEMBRANE_LIMIT, MEMBRANE_LIMIT)


def lif_forward(
    a: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, threshold: torch.Tensor, decay: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes (T, N), and the membrane after the last step (N,)."""
    membrane, offset, bar = v.double(), bias.double() * BIT, threshold * BIT
    spikes = []
    for current in a.unbind(0):
        h = _advance(membrane, current, offset, decay)
        fired = h > bar
        membrane = h.masked_fill(fired, 0)
        spikes.append(fired)
    return torch.stack(spikes).to(a.dtype), membrane.float()


def lif_backward(
    a: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor,
    threshold: torch.Tensor,
    decay: int,
    step: torch.Tensor,
    grad_s: torch.Tensor,
    grad_v: torch.Tensor,
    k: float,
    detach: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ā (T, N), v̄ of the first membrane and b̄, (N,) each."""
    membrane, offset, bar, unit = v.double(), bias.double() * BIT, threshold * BIT, step / BIT
    h = torch.empty_like(a, dtype=torch.float32)
    for t, current in enumerate(a.unbind(0)):
        now = _advance(membrane, current, offset, decay)
        h[t] = now
        membrane = now.masked_fill(now > bar, 0)
    grad_a, grad_bias = torch.empty_like(a), torch.zeros_like(v)
    grad_v = grad_v / unit
    for t in range(a.shape[0] - 1, -1, -1):
        through = grad_s[t] if detach else grad_s[t] - grad_v * (h[t] * unit)
        grad_h = surrogate_derivative((h[t] - bar) * unit, k) * through + grad_v.masked_fill(h[t] > bar, 0.0)
        grad_h = grad_h.masked_fill(h[t].abs() >= MEMBRANE_LIMIT, 0.0)
        grad_a[t] = grad_h * step
        grad_bias += grad_h * step
        grad_v = grad_h * (1 - decay / DECAY_ONE)
    return grad_a, grad_v * unit, grad_bias
