r"""The multi-step kernels for GPUs, in Triton; meaning and shapes as in :mod:`ashnets.kernels.reference`.

Each program runs a block of neurons through all T steps with the membranes in registers: x is read once and spikes
are written once, in one launch. K steps of x are loaded before the first is used; loading one step at a time would wait
for memory T times.

The backward pass needs h[t] in reverse order, but stores no (T, N) floats for it. A first pass stores v before every
K-th step, (T/K, N). Then, from the last segment of K steps to the first, h of the segment is recomputed from this v and
stays in registers while the adjoint runs back over it. x is read twice (once if T ≤ K), the gradient of the spikes is
read once, and the result is written once. Registers are named at compile time, so the K values are a tuple of tensors
in an unrolled loop; a (K, block) tensor would have to be indexed by step, which Triton can only do by reductions. If K
does not divide T, the steps after T are masked.

Spikes equal the reference's to the bit, in both passes: Triton fuses a product and the following sum unless it is
launched with ``enable_fp_fusion=False``, which separates them in PTX (mul.rn, add.rn) and in ptxas (--fmad=false).

x may be float32, float16 or bfloat16; spikes and ȳ have its type, and the state is float32.

The CUDA and ROCm builds of torch include Triton. On a CPU these kernels run, slowly, in Triton's interpreter if
``TRITON_INTERPRET=1`` is in the environment both at import and at each call.
"""

# mypy does not know the types of a kernel's arguments, nor Triton's growing tuples.
# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import os
from pathlib import Path

import torch
import triton
import triton.language as tl

TYPES = (torch.float32, torch.float16, torch.bfloat16)  # of x
_STEPS = 16  # K: h, x and the gradient of the spikes take 3·K of a thread's 255 registers
_BLOCK = 128  # one neuron per thread: many programs even for few neurons; K loads per thread suffice for many
OPTIONS = {"num_warps": _BLOCK // 32, "enable_fp_fusion": False}  # of every launch


@triton.jit
def _inside(column, t, steps, neurons):
    return column < tl.where(t < steps, neurons, 0)


@triton.jit
def _row(pointer, column, t, neurons):
    return pointer + tl.cast(t, tl.int64) * neurons + column


@triton.jit
def _read(pointer, column, start, steps, neurons, K: tl.constexpr):
    """K rows from ``start`` on, loaded together; zeros after the last step."""
    rows = ()
    for i in tl.static_range(K):
        inside = _inside(column, start + i, steps, neurons)
        now = tl.load(_row(pointer, column, start + i, neurons), mask=inside, other=0.0)
        rows = rows + (now.to(tl.float32),)  # noqa: RUF005 (Triton knows no starred tuples)
    return rows


@triton.jit
def _slope(distance, k2):
    """(k/2)·sech²(k·d) = 2k·e/(1 + e)² with e = e^(−2k·|d|); k2 = 2k."""
    z = k2 * tl.abs(distance)
    e = tl.exp(-tl.where(z > 80.0, 80.0, z))
    q = 1.0 / (1.0 + e)
    return k2 * e * q * q


@triton.jit(do_not_specialize=["steps"])
def ashnets_lif_forward(
    x, v0, scale, shift, s, v_last, steps, neurons, beta, theta, K: tl.constexpr, BLOCK: tl.constexpr
):
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own = column < neurons
    v = tl.load(v0 + column, mask=own, other=0.0)
    if scale is not None:
        a = tl.load(scale + column, mask=own, other=0.0)
        c = tl.load(shift + column, mask=own, other=0.0)
    for start in range(0, steps, K):
        currents = _read(x, column, start, steps, neurons, K)
        for i in tl.static_range(K):
            y = currents[i]
            if scale is not None:
                y = y * a + c
            h = beta * v + y
            fired = h > theta
            inside = _inside(column, start + i, steps, neurons)
            tl.store(_row(s, column, start + i, neurons), tl.where(fired, 1.0, 0.0), mask=inside)
            v = tl.where(inside, tl.where(fired, 0.0, h), v)
    tl.store(v_last + column, v, mask=own)


@triton.jit(do_not_specialize=["steps"])
def ashnets_lif_backward(
    x,
    v0,
    scale,
    shift,
    mean,
    grad_s,
    grad_v,
    kept,
    grad_x,
    grad_v0,
    grad_sum,
    product_sum,
    steps,
    neurons,
    beta,
    theta,
    k2,
    DETACH: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own = column < neurons
    if scale is not None:
        a = tl.load(scale + column, mask=own, other=0.0)
        c = tl.load(shift + column, mask=own, other=0.0)
    last = (steps - 1) // K
    v = tl.load(v0 + column, mask=own, other=0.0)
    for n in range(last):
        currents = _read(x, column, n * K, steps, neurons, K)
        for i in tl.static_range(K):
            y = currents[i]
            if scale is not None:
                y = y * a + c
            h = beta * v + y
            v = tl.where(h > theta, 0.0, h)
        tl.store(_row(kept, column, n, neurons), v, mask=own)
    tl.debug_barrier()  # a thread may read what another thread of its block stored

    g = tl.load(grad_v + column, mask=own, other=0.0)
    if mean is not None:
        center = tl.load(mean + column, mask=own, other=0.0)
        total = tl.full((BLOCK,), 0.0, tl.float32)
        product = tl.full((BLOCK,), 0.0, tl.float32)
    for back in range(last + 1):
        n = last - back
        if n > 0:
            v = tl.load(_row(kept, column, n - 1, neurons), mask=own, other=0.0)
        else:
            v = tl.load(v0 + column, mask=own, other=0.0)
        currents = _read(x, column, n * K, steps, neurons, K)
        upstream = _read(grad_s, column, n * K, steps, neurons, K)
        membranes = ()
        for i in tl.static_range(K):
            y = currents[i]
            if scale is not None:
                y = y * a + c
            h = beta * v + y
            v = tl.where(h > theta, 0.0, h)
            membranes = membranes + (h,)  # noqa: RUF005
        for j in tl.static_range(K):
            h = membranes[K - 1 - j]
            through = upstream[K - 1 - j]
            if not DETACH:
                through = through - g * h
            grad = _slope(h - theta, k2) * through + tl.where(h > theta, 0.0, g)
            t = n * K + (K - 1 - j)
            inside = _inside(column, t, steps, neurons)
            tl.store(_row(grad_x, column, t, neurons), grad, mask=inside)
            g = tl.where(inside, beta * grad, g)
            if mean is not None:
                total += tl.where(inside, grad, 0.0)
                product += tl.where(inside, grad * (currents[K - 1 - j] - center), 0.0)
    tl.store(grad_v0 + column, g, mask=own)
    if mean is not None:
        tl.store(grad_sum + column, total, mask=own)
        tl.store(product_sum + column, product, mask=own)


@triton.jit(do_not_specialize=["steps"])
def ashnets_moments(x, mean, square, steps, neurons, K: tl.constexpr, BLOCK: tl.constexpr):
    """In one pass: both moments of K steps about their own mean, combined with those before (Chan et al., 1979).

    Means are stored as differences from x[0]: next to a large mean, a small spread would lose its digits.
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own = column < neurons
    first = tl.load(x + column, mask=own, other=0.0).to(tl.float32)
    center = tl.full((BLOCK,), 0.0, tl.float32)
    squares = tl.full((BLOCK,), 0.0, tl.float32)
    for start in range(0, steps, K):
        rows = _read(x, column, start, steps, neurons, K)
        count = tl.minimum(steps - start, K)
        away = tl.full((BLOCK,), 0.0, tl.float32)
        for i in tl.static_range(K):
            away += tl.where(_inside(column, start + i, steps, neurons), rows[i] - first - center, 0.0)
        away = away / count
        for i in tl.static_range(K):
            d = tl.where(_inside(column, start + i, steps, neurons), rows[i] - first - center - away, 0.0)
            squares += d * d
        share = count / (start + count)
        squares += away * away * (start * share)
        center += away * share
    tl.store(mean + column, first + center, mask=own)
    tl.store(square + column, squares, mask=own)


@triton.jit(do_not_specialize=["steps"])
def ashnets_norm_backward(
    grad, x, mean, factor, grad_mean, product, steps, neurons, K: tl.constexpr, BLOCK: tl.constexpr
):
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    start = tl.program_id(1) * K
    own = column < neurons
    center = tl.load(mean + column, mask=own, other=0.0)
    a = tl.load(factor + column, mask=own, other=0.0)
    b = tl.load(grad_mean + column, mask=own, other=0.0)
    c = tl.load(product + column, mask=own, other=0.0)
    grads = _read(grad, column, start, steps, neurons, K)
    rows = _read(x, column, start, steps, neurons, K)
    for i in tl.static_range(K):
        inside = _inside(column, start + i, steps, neurons)
        found = a * (grads[i] - b) - c * (rows[i] - center)
        tl.store(_row(grad, column, start + i, neurons), found, mask=inside)


def _segment(steps: int) -> int:
    return min(_STEPS, triton.next_power_of_2(steps))


def _launch(
    kernel: triton.JITFunction, x: torch.Tensor, *arguments: object, parts: int = 1, **constants: object
) -> None:
    """One launch over all neurons of ``x``, (T, N), on the device of ``x``, which may not be the current one."""
    steps, neurons = x.shape
    if neurons == 0:
        return
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(neurons, _BLOCK), parts)](
            *arguments, K=_segment(steps), BLOCK=_BLOCK, **constants, **OPTIONS
        )


def _dense(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    return [None if one is None else one.detach().contiguous() for one in tensors]


def lif_forward(x, v, scale, shift, beta, theta):
    s, last = torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(v)
    _launch(ashnets_lif_forward, x, *_dense(x, v, scale, shift), s, last, *x.shape, float(beta), float(theta))
    return s, last


def lif_backward(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach):
    sums = mean is not None
    grad_x, grad_v0 = torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(v)
    grad_sum, product_sum = (torch.empty_like(v), torch.empty_like(v)) if sums else (None, None)
    kept = v.new_empty((x.shape[0] - 1) // _segment(x.shape[0]), v.shape[0])
    _launch(
        ashnets_lif_backward,
        x,
        *_dense(x, v, scale, shift, mean, grad_s, grad_v),
        kept,
        grad_x,
        grad_v0,
        grad_sum,
        product_sum,
        *x.shape,
        float(beta),
        float(theta),
        2.0 * k,
        DETACH=bool(detach),
    )
    return grad_x, grad_v0, grad_sum, product_sum


def moments(x):
    mean, square = (torch.empty_like(x[0], dtype=torch.float32) for _ in range(2))
    _launch(ashnets_moments, x, *_dense(x), mean, square, *x.shape)
    return mean, square


def norm_backward(grad, x, mean, factor, grad_mean, product):
    parts = triton.cdiv(x.shape[0], _segment(x.shape[0]))
    _launch(ashnets_norm_backward, x, grad, *_dense(x, mean, factor, grad_mean, product), *x.shape, parts=parts)


def try_out(device: str) -> None:
    """Compile and run the smallest kernel; raises what Triton raises if it cannot."""
    moments(torch.zeros(1, 1, device=device))


def is_compiled() -> bool:
    """Whether Triton's cache on disk contains a forward kernel of an earlier process."""
    home = Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~"))  # as in Triton
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or home / ".triton" / "cache")
    return any(folder.glob(f"*/{ashnets_lif_forward.__name__}.json"))
