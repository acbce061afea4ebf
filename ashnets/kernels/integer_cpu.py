r"""The integer kernels for CPUs, compiled by numba; meaning and shapes as in
:mod:`ashnets.kernels.integer_reference`, blocks and threads as in :mod:`ashnets.kernels.cpu`.

All arithmetic is in 32 bits, whose vector products are the cheapest. v·m/4096 has 36 bits before the division; but with
|v| = 4096·p + q, q < 4096, it is exactly p·m + (q·m >> 12), with p·m below 2²³ and q·m below 2²⁴. The magnitude of the
membrane is truncated, which is truncation toward zero.
"""

from __future__ import annotations

import numpy as np
import torch

from ashnets.kernels import buffers
from ashnets.kernels.compiling import array, block_of, fused, kernel, rows
from ashnets.kernels.cpu import slope
from ashnets.kernels.integer_reference import BIT, DECAY_ONE, MEMBRANE_LIMIT
from ashnets.kernels.regions import in_shares
from ashnets.kernels.threads import BACKWARD, over_neurons
from ashnets.kernels.vectors import full_vectors

f32, i32 = np.float32, np.int32
_LIMIT = i32(MEMBRANE_LIMIT)
_FAR = 1 << 25  # above every h before clipping: a larger bias or threshold has the same effect


@kernel
def _next(v, a, offset, m):
    """h[t] of v[t−1]."""
    size = i32(v if v >= i32(0) else -v)
    kept = i32(i32(i32(size >> i32(12)) * m) + i32(i32(i32(size & i32(4095)) * m) >> i32(12)))
    kept = i32(kept if v >= i32(0) else -kept)
    u = i32(i32(i32(np.rint(a)) << i32(14)) >> i32(8))
    h = i32(i32(kept + u) + offset)
    h = h if h < _LIMIT else _LIMIT
    return h if h > -_LIMIT else i32(-_LIMIT)


@kernel
def _load(x, out, factor, far):
    full_vectors()
    for j in range(x.size):
        value = x[j] * factor
        value = value if value < far else far
        out[j] = i32(value if value > -far else -far)


@kernel
def _step(a, v, s, offset, m, bar):
    full_vectors()
    for j in range(a.size):
        h = _next(v[j], a[j], offset[j], m)
        s[j] = f32(1.0) if h > bar else f32(0.0)
        v[j] = i32(0) if h > bar else h


@kernel
def _membrane(a, v, h, offset, m, bar):
    full_vectors()
    for j in range(a.size):
        now = _next(v[j], a[j], offset[j], m)
        h[j] = now
        v[j] = i32(0) if now > bar else now


@fused
def _adjoint(h, grad_s, grad_v, grad_a, grad_bias, bar, beta, step, unit, k2, through_reset):
    """``through_reset`` is 1 with the gradient through the reset, 0 without."""
    full_vectors()
    for j in range(h.size):
        d = f32(i32(h[j] - bar)) * unit
        through = grad_v[j]
        through = f32(0.0) if h[j] > bar else through
        spike = grad_s[j] - through_reset * (grad_v[j] * (f32(h[j]) * unit))
        g = slope(d, k2) * spike + through
        g = g if h[j] < _LIMIT else f32(0.0)
        g = g if h[j] > -_LIMIT else f32(0.0)
        by_unit = g * step
        grad_a[j] = by_unit
        grad_bias[j] += by_unit
        grad_v[j] = beta * g


@kernel
def _forward(a, v0, bias, m, bar, s, last, block, low, high):
    v, offset = np.empty(block, np.int32), np.empty(block, np.int32)
    for start in range(low, high, block):
        end = min(start + block, high)
        n = end - start
        _load(v0[start:end], v[:n], f32(1.0), f32(_FAR))
        _load(bias[start:end], offset[:n], f32(BIT), f32(_FAR))
        for t in range(a.shape[0]):
            _step(a[t, start:end], v[:n], s[t, start:end], offset[:n], m, bar)
        for j in range(n):
            last[start + j] = f32(v[j])


@kernel
def _forward_shared(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _forward, arguments)


@kernel
def _backward(
    a, v0, bias, m, bar, step, grad_s, grad_v, k, through_reset, grad_a, grad_v0, grad_bias, block, low, high
):
    steps = a.shape[0]
    h = rows(steps, block).view(np.int32)
    v, offset = np.empty(block, np.int32), np.empty(block, np.int32)
    beta, unit, k2 = f32(m) / f32(DECAY_ONE), step / f32(BIT), f32(2.0) * k
    for start in range(low, high, block):
        end = min(start + block, high)
        n = end - start
        _load(v0[start:end], v[:n], f32(1.0), f32(_FAR))
        _load(bias[start:end], offset[:n], f32(BIT), f32(_FAR))
        for t in range(steps):
            _membrane(a[t, start:end], v[:n], h[t, :n], offset[:n], m, bar)
        g = grad_v0[start:end]
        for j in range(n):
            g[j] = grad_v[start + j] / unit
        grad_bias[start:end] = f32(0.0)
        for t in range(steps - 1, -1, -1):
            _adjoint(
                h[t, :n],
                grad_s[t, start:end],
                g,
                grad_a[t, start:end],
                grad_bias[start:end],
                bar,
                beta,
                step,
                unit,
                k2,
                through_reset,
            )
        for j in range(n):
            g[j] *= unit


@kernel
def _backward_shared(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _backward, arguments)


def _bar(threshold: torch.Tensor) -> np.int32:
    # A NaN threshold is never crossed: min returns its first argument unless the second is smaller.
    return i32(max(-_FAR, min(_FAR, float(threshold) * BIT)))


def lif_forward(a, v, bias, threshold, decay):
    s, last = buffers.empty_like(a), torch.empty_like(v)
    over_neurons(
        _forward_shared,
        a.shape,
        block_of(a.shape[0]),
        array(a),
        array(v),
        array(bias),
        i32(DECAY_ONE - decay),
        _bar(threshold),
        array(s),
        array(last),
    )
    return s, last


def lif_backward(a, v, bias, threshold, decay, step, grad_s, grad_v, k, detach):
    grad_a = buffers.empty_like(a)
    grad_v0, grad_bias = torch.empty_like(v), torch.empty_like(v)
    over_neurons(
        _backward_shared,
        a.shape,
        block_of(a.shape[0]),
        array(a),
        array(v),
        array(bias),
        i32(DECAY_ONE - decay),
        _bar(threshold),
        f32(float(step)),
        array(grad_s),
        array(grad_v),
        f32(k),
        f32(not detach),
        array(grad_a),
        array(grad_v0),
        array(grad_bias),
        additions=BACKWARD,
    )
    return grad_a, grad_v0, grad_bias


def compile_all() -> None:
    """Compile each kernel, or read it from disk, by a minimal call."""
    a, v, one = torch.zeros(1, 1), torch.zeros(1), torch.ones(())
    lif_forward(a, v, v, one, 1)
    lif_backward(a, v, v, one, 1, one, a, v, 1.0, True)
