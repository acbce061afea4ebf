r"""The multi-step kernels for CPUs, compiled by numba; meaning and shapes as in :mod:`ashnets.kernels.reference`.

Neurons are independent, so a block of them runs through all T steps while its membranes, or its recomputed h[t], stay
in the cache: for any T, x is read once and spikes are written once. Each thread takes ranges of neurons.

x may be float32 or bfloat16, read and written without a copy (:mod:`ashnets.kernels.halves`). Spikes and ȳ have the
type of x; the arithmetic and the state are float32. So the results are those of the same numbers in float32, rounded.
float16 is copied to float32 (:mod:`ashnets.kernels.operators`), since autocast on CPUs uses bfloat16.

The forward pass rounds after every product and every sum, as the reference does: the spikes are equal to the bit. The
backward pass fuses products and sums, and computes e^(−z) by a polynomial: its relative error is below 10⁻⁶ for z ≤ 10,
and grows in proportion to z.

The loop over one row of a block is a separate function: in one large function, numba's index checks prevent LLVM from
using vector instructions.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import torch

from ashnets.kernels import buffers
from ashnets.kernels.compiling import array, block_of, fused, kernel, rows
from ashnets.kernels.halves import rounded, single
from ashnets.kernels.prefetching import written_next
from ashnets.kernels.regions import in_shares
from ashnets.kernels.threads import BACKWARD, over_neurons, start_threads
from ashnets.kernels.vectors import full_vectors

TYPES = (torch.float32, torch.bfloat16)  # of x
f32 = np.float32
_WIDE = 1 << 14  # neurons
_MANY = 1 << 23  # neuron-steps from which measuring the block pays
_SAMPLE = (64, 1 << 16)  # steps and neurons that are measured


@kernel
def _step(x, v, s, beta, theta):
    full_vectors()
    for j in range(x.size):
        h = beta * v[j] + single(x[j])
        s[j] = rounded(f32(1.0) if h > theta else f32(0.0), s)
        v[j] = f32(0.0) if h > theta else h


@kernel
def _step_affine(x, scale, shift, v, s, beta, theta):
    full_vectors()
    for j in range(x.size):
        h = beta * v[j] + (single(x[j]) * scale[j] + shift[j])
        s[j] = rounded(f32(1.0) if h > theta else f32(0.0), s)
        v[j] = f32(0.0) if h > theta else h


@kernel
def _membrane(x, v, h, beta, theta):
    full_vectors()
    for j in range(x.size):
        now = beta * v[j] + single(x[j])
        h[j] = now
        v[j] = f32(0.0) if now > theta else now


@kernel
def _membrane_affine(x, scale, shift, v, h, beta, theta):
    full_vectors()
    for j in range(x.size):
        now = beta * v[j] + (single(x[j]) * scale[j] + shift[j])
        h[j] = now
        v[j] = f32(0.0) if now > theta else now


@fused
def _power_of_two_minus(u):
    """2^(−u) for 0 ≤ u ≤ 120: 2ⁿ·2^f with |f| ≤ ½."""
    shifted = f32(12582912.0) - u  # 1.5·2²³: the last bits of the difference are n
    f = -u - (shifted - f32(12582912.0))
    # the polynomial of degree 5 with value 1 at 0 and the smallest relative error, 1.1e-7
    p = f32(1.326472731307149e-3)
    p = p * f + f32(9.671512991189957e-3)
    p = p * f + f32(5.550733581185341e-2)
    p = p * f + f32(2.4022242426872253e-1)
    p = p * f + f32(6.931470036506653e-1)
    p = p * f + f32(1.0)
    bits = np.float32(p).view(np.int32) + np.int32(np.int32(np.float32(shifted).view(np.int32)) << np.int32(23))
    return np.int32(bits).view(np.float32)


@fused
def slope(distance, k2):
    """(k/2)·sech²(k·d) = 2k·e/(1 + e)² with e = e^(−2k·|d|); k2 = 2k."""
    u = abs(distance) * (k2 * f32(1.4426950408889634))
    e = _power_of_two_minus(f32(115.0) if u > f32(115.0) else u)  # NaN stays NaN
    q = np.sqrt(k2) / (f32(1.0) + e)
    return e * q * q


@fused
def _adjoint(h, grad_s, grad_v, exact, grad_x, beta, theta, k2):
    full_vectors()
    for j in range(h.size):
        d = h[j] - theta
        through = grad_v[j]
        through = f32(0.0) if d > f32(0.0) else through
        g = slope(d, k2) * single(grad_s[j]) + through
        if exact is not None:
            exact[j] = g
        grad_x[j] = rounded(g, grad_x)
        grad_v[j] = beta * g


@fused
def _adjoint_reset(h, grad_s, grad_v, exact, grad_x, beta, theta, k2):
    """With the gradient through the reset."""
    full_vectors()
    for j in range(h.size):
        d = h[j] - theta
        through = grad_v[j]
        through = f32(0.0) if d > f32(0.0) else through
        g = slope(d, k2) * (single(grad_s[j]) - grad_v[j] * h[j]) + through
        if exact is not None:
            exact[j] = g
        grad_x[j] = rounded(g, grad_x)
        grad_v[j] = beta * g


@fused
def _add_sums(grad, x, mean, grad_sum, product_sum):
    full_vectors()
    for j in range(grad.size):
        grad_sum[j] += grad[j]
        product_sum[j] += grad[j] * (single(x[j]) - mean[j])


@kernel
def _forward(x, v0, scale, shift, affine, beta, theta, s, v, block, low, high):
    for a in range(low, high, block):
        b = min(a + block, high)
        v[a:b] = v0[a:b]
        for t in range(x.shape[0]):
            if t + 1 < x.shape[0]:
                written_next(s[t + 1, a:b])
            if affine:
                _step_affine(x[t, a:b], scale[a:b], shift[a:b], v[a:b], s[t, a:b], beta, theta)
            else:
                _step(x[t, a:b], v[a:b], s[t, a:b], beta, theta)


@kernel
def _forward_shared(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _forward, arguments)


@kernel
def _backward(
    x,
    v0,
    scale,
    shift,
    affine,
    mean,
    sums,
    grad_s,
    grad_v,
    beta,
    theta,
    k,
    detach,
    grad_x,
    grad_v0,
    grad_sum,
    product_sum,
    block,
    low,
    high,
):
    steps = x.shape[0]
    h, exact = rows(steps, block), np.empty(block, np.float32)
    k2 = f32(2.0) * k
    for a in range(low, high, block):
        b = min(a + block, high)
        n = b - a
        g = grad_v0[a:b]
        g[:] = v0[a:b]
        for t in range(steps):
            if affine:
                _membrane_affine(x[t, a:b], scale[a:b], shift[a:b], g, h[t, :n], beta, theta)
            else:
                _membrane(x[t, a:b], g, h[t, :n], beta, theta)
        g[:] = grad_v[a:b]
        if sums:
            grad_sum[a:b] = f32(0.0)
            product_sum[a:b] = f32(0.0)
        for t in range(steps - 1, -1, -1):
            if not sums and detach:
                _adjoint(h[t, :n], grad_s[t, a:b], g, None, grad_x[t, a:b], beta, theta, k2)
            elif not sums:
                _adjoint_reset(h[t, :n], grad_s[t, a:b], g, None, grad_x[t, a:b], beta, theta, k2)
            elif detach:
                _adjoint(h[t, :n], grad_s[t, a:b], g, exact[:n], grad_x[t, a:b], beta, theta, k2)
            else:
                _adjoint_reset(h[t, :n], grad_s[t, a:b], g, exact[:n], grad_x[t, a:b], beta, theta, k2)
            if sums:
                _add_sums(exact[:n], x[t, a:b], mean[a:b], grad_sum[a:b], product_sum[a:b])


@kernel
def _backward_shared(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _backward, arguments)


@fused
def _add(x, total):
    full_vectors()
    for j in range(x.size):
        total[j] += single(x[j])


@fused
def _add_square(x, center, total, square):
    full_vectors()
    for j in range(x.size):
        d = single(x[j]) - center[j]
        total[j] += d
        square[j] += d * d


@kernel
def _moments(x, mean, square, block, low, high):
    steps = x.shape[0]
    rest = np.empty(block, np.float32)
    for a in range(low, high, block):
        b = min(a + block, high)
        center = mean[a:b]
        center[:] = f32(0.0)
        for t in range(steps):
            _add(x[t, a:b], center)
        for j in range(b - a):
            center[j] /= f32(steps)
        square[a:b] = f32(0.0)
        rest[:] = f32(0.0)
        for t in range(steps):
            _add_square(x[t, a:b], center, rest[: b - a], square[a:b])
        for j in range(b - a):
            more = rest[j] / f32(steps)
            square[a + j] -= rest[j] * more
            center[j] += more


@kernel
def _moments_shared(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _moments, arguments)


@fused
def _normalize_back(grad, x, mean, factor, grad_mean, product):
    full_vectors()
    for j in range(grad.size):
        g = factor[j] * (single(grad[j]) - grad_mean[j]) - product[j] * (single(x[j]) - mean[j])
        grad[j] = rounded(g, grad)


@kernel
def _norm_backward(grad, x, mean, factor, grad_mean, product, block, low, high):
    for a in range(low, high, block):
        b = min(a + block, high)
        for t in range(x.shape[0]):
            _normalize_back(grad[t, a:b], x[t, a:b], mean[a:b], factor[a:b], grad_mean[a:b], product[a:b])


@kernel
def _norm_backward_shared(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _norm_backward, arguments)


@kernel
def _draw(spread, bar, low_key, high_key, out):
    full_vectors()
    for j in range(spread.size):
        x = np.uint32(spread[j] ^ low_key)
        x = np.uint32(x ^ (x >> np.uint32(16)))
        x = np.uint32(np.uint32(x * np.uint32(0x7FEB352D)) + high_key)
        x = np.uint32(x ^ (x >> np.uint32(15)))
        x = np.uint32(x * np.uint32(0x846CA68B))
        x = np.uint32(x ^ (x >> np.uint32(16)))
        out[j] = f32(1.0) if np.int32(x >> np.uint32(8)) < bar[j] else f32(0.0)


@kernel
def _sample(spread, bar, low_keys, high_keys, out, block, low, high):
    for b in range(low, high):
        for t in range(out.shape[0]):
            _draw(spread, bar[b], low_keys[b, t], high_keys[b, t], out[t, b])


@kernel
def _sample_shared(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _sample, arguments)


def lif_block(shape: tuple[int, int]) -> int:
    """Number of neurons of (T, N) that run through all steps together; it changes no result.

    A block whose h fills half of the second-level cache is the rule. Where rows are long and many, such a block is a
    short piece of each row, and some processors read long pieces so much faster that h may leave that cache.
    """
    steps, neurons = shape
    many = steps * neurons >= _MANY and neurons >= 2 * _WIDE * torch.get_num_threads()
    return _WIDE if many and wide_blocks_pay() else block_of(steps)


@cache
def wide_blocks_pay() -> bool:
    """Whether blocks of ``_WIDE`` neurons are faster on this machine: measured once, in about a tenth of a second."""
    steps, neurons = _SAMPLE
    x, grad = np.full(_SAMPLE, f32(0.5)), np.full(_SAMPLE, f32(1.0))
    s, grad_x = np.zeros(_SAMPLE, f32), np.zeros(_SAMPLE, f32)
    v, last, grad_v = (np.zeros(neurons, f32) for _ in range(3))
    none, half, one = array(None), f32(0.5), f32(1.0)

    def seconds(block: int) -> float:
        begun = time.perf_counter()
        _forward(x, v, none, none, False, half, one, s, last, block, 0, neurons)
        given = (x, v, none, none, False, none, False, grad, v, half, one, one, True, grad_x, grad_v, none, none)
        _backward(*given, block, 0, neurons)
        return time.perf_counter() - begun

    return _first_is_faster([(seconds(_WIDE), seconds(block_of(steps))) for _ in range(7)])


def _first_is_faster(pairs: list[tuple[float, float]]) -> bool:
    """By the shortest times of two; the first pair fills caches and pages and does not count."""
    first, second = (min(times) for times in zip(*pairs[1:], strict=True))
    return first < second


def lif_forward(x, v, scale, shift, beta, theta):
    s, last = buffers.empty_like(x), torch.empty_like(v)
    over_neurons(
        _forward_shared,
        x.shape,
        lif_block(x.shape),
        array(x),
        array(v),
        array(scale),
        array(shift),
        scale is not None,
        f32(beta),
        f32(theta),
        array(s),
        last.numpy(),
    )
    return s, last


def lif_backward(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach):
    sums = mean is not None
    grad_x, grad_v0 = buffers.empty_like(x), torch.empty_like(v)
    grad_sum, product_sum = (torch.empty_like(v), torch.empty_like(v)) if sums else (None, None)
    over_neurons(
        _backward_shared,
        x.shape,
        lif_block(x.shape),
        array(x),
        array(v),
        array(scale),
        array(shift),
        scale is not None,
        array(mean),
        sums,
        array(grad_s),
        array(grad_v),
        f32(beta),
        f32(theta),
        f32(k),
        bool(detach),
        array(grad_x),
        grad_v0.numpy(),
        array(grad_sum),
        array(product_sum),
        additions=BACKWARD,
    )
    return grad_x, grad_v0, grad_sum, product_sum


def moments(x):
    mean, square = (torch.empty_like(x[0], dtype=torch.float32) for _ in range(2))
    over_neurons(_moments_shared, x.shape, block_of(x.shape[0]), array(x), mean.numpy(), square.numpy())
    return mean, square


def norm_backward(grad, x, mean, factor, grad_mean, product):
    over_neurons(
        _norm_backward_shared, x.shape, block_of(x.shape[0]), *map(array, (grad, x, mean, factor, grad_mean, product))
    )


def sample(spread, bar, keys, out):
    """Fill (T, B, P) with 1 where the 24-bit hash of (key, position) is below ``bar`` (B, P), and 0 elsewhere.

    Args:
        spread: (P,), uint32, one number for each position.
        keys: (B, T), uint64.
    """
    low, high = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), (keys >> np.uint64(32)).astype(np.uint32)
    images, positions = bar.shape
    over_neurons(_sample_shared, (out.shape[0] * positions, images), 1, spread, bar.numpy(), low, high, out.numpy())


def compile_all() -> None:
    """Compile each kernel, or read it from disk, by a minimal call for each type."""
    start_threads(1)
    v = torch.zeros(1)
    for kind in TYPES:
        x = torch.zeros(1, 1, dtype=kind)
        lif_forward(x, v, None, None, 0.5, 1.0)
        lif_backward(x, v, None, None, None, x, v, 0.5, 1.0, 1.0, True)
        moments(x)
        norm_backward(x, x, v, v, v, v)
    drawn = torch.zeros(1, 1, 1)
    sample(np.zeros(1, np.uint32), torch.zeros(1, 1, dtype=torch.int32), np.zeros((1, 1), np.uint64), drawn)
