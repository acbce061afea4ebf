"""bfloat16 in the CPU kernels: equal to the bit to the rounded results of the same numbers in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from ashnets.kernels import cpu, operators, reference
from ashnets.kernels.halves import rounded, single
from ashnets.model.neuron import lif

BF16 = torch.bfloat16


def numbers(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@njit
def widen(x, out):
    for j in range(x.size):
        out[j] = single(x[j])


@njit
def narrow(x, out):
    for j in range(x.size):
        out[j] = rounded(x[j], out)


def test_every_half_is_read_as_torch_reads_it():
    """All 65,536, with infinities, NaN and subnormal numbers."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    out = np.empty(1 << 16, np.float32)
    widen(halves, out)
    true = torch.from_numpy(halves).view(BF16).float()
    assert np.array_equal(out.view(np.int32), true.numpy().view(np.int32))


def test_rounding_is_torch_s():
    """Two million random bit patterns, the ties between all neighbors, and one bit below and above each tie."""
    rng = np.random.default_rng(0)
    ties = (np.arange(1 << 16, dtype=np.uint32) << 16) + np.uint32(0x8000)
    bits = np.concatenate([rng.integers(0, 2**32, 2_000_000, np.uint32), ties, ties - 1, ties + 1])
    out = np.empty(len(bits), np.uint16)
    narrow(bits.view(np.float32), out)
    wide = torch.from_numpy(bits.view(np.float32))
    true, ours = wide.to(BF16), torch.from_numpy(out).view(BF16)
    assert torch.equal(ours.isnan(), wide.isnan())
    clear = ~wide.isnan()
    assert torch.equal(ours.view(torch.int16)[clear], true.view(torch.int16)[clear])


@settings(max_examples=60)
@given(
    st.integers(1, 12),
    st.integers(1, 300),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4096),
    st.floats(0.1, 3.0),
    st.floats(0.5, 8.0),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_kernels_give_the_rounded_results_of_single_precision(
    steps, neurons, seed, decay, theta, k, affine, detach, sums
):
    beta = 1 - decay / 4096
    x, v, scale, shift, mean, grad_s, grad_v = numbers(
        seed, (steps, neurons), (neurons,), (neurons,), (neurons,), (neurons,), (steps, neurons), (neurons,)
    )
    x, grad_s = x.to(BF16), grad_s.to(BF16)
    if not affine:
        scale = shift = None
    s, last = cpu.lif_forward(x, v, scale, shift, beta, theta)
    wide, last_wide = cpu.lif_forward(x.float(), v, scale, shift, beta, theta)
    assert s.dtype == BF16 and last.dtype == torch.float32
    assert torch.equal(s.float(), wide) and torch.equal(last, last_wide)
    assert torch.equal(wide, reference.lif_forward(x.float(), v, scale, shift, beta, theta)[0])
    center = mean if sums else None
    found = cpu.lif_backward(x, v, scale, shift, center, grad_s, grad_v, beta, theta, k, detach)
    true = cpu.lif_backward(x.float(), v, scale, shift, center, grad_s.float(), grad_v, beta, theta, k, detach)
    assert found[0].dtype == BF16 and torch.equal(found[0], true[0].to(BF16))
    for ours, expected in zip(found[1:], true[1:], strict=True):
        assert (ours is expected is None) or torch.equal(ours, expected)
    for ours, expected in zip(cpu.moments(x), cpu.moments(x.float()), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, expected)
    grad, grad_wide = found[0].clone(), found[0].float()
    cpu.norm_backward(grad, x, v, mean, grad_v, last)
    cpu.norm_backward(grad_wide, x.float(), v, mean, grad_v, last)
    assert torch.equal(grad, grad_wide.to(BF16))


@pytest.mark.parametrize(("kind", "upstream"), [(torch.float16, torch.float16), (BF16, BF16), (BF16, torch.float32)])
def test_operators_take_every_half(kind, upstream):
    """float16, which the CPU kernels do not read, and a gradient of another type than the currents."""
    x, v, scale, grad_s, mean = numbers(3, (9, 70), (70,), (70,), (9, 70), (70,))
    x, grad_s = x.to(kind), grad_s.to(upstream)
    s, last = operators.lif_forward(x, v, scale, v, 0.75, 0.6)
    wide, last_wide = operators.lif_forward(x.float(), v, scale, v, 0.75, 0.6)
    assert s.dtype == kind and torch.equal(s.float(), wide) and torch.equal(last, last_wide)
    found = operators.lif_backward(x, v, scale, v, mean, grad_s, v, 0.75, 0.6, 2.0, True)
    true = operators.lif_backward(x.float(), v, scale, v, mean, grad_s.float(), v, 0.75, 0.6, 2.0, True)
    assert torch.equal(found[0], true[0].to(kind))
    assert all(torch.equal(one, other) for one, other in zip(found[1:], true[1:], strict=True))
    moments = operators.moments(x)
    assert all(torch.equal(one, other) for one, other in zip(moments, operators.moments(x.float()), strict=True))
    grad, grad_wide = found[0].clone(), found[0].float()
    operators.norm_backward(grad, x, mean, scale, v, v)
    operators.norm_backward(grad_wide, x.float(), mean, scale, v, v)
    assert torch.equal(grad, grad_wide.to(kind))


def test_operators_describe_halves_to_the_compiler():
    for kind in (BF16, torch.float16):
        x, v = numbers(7, (4, 6), (6,))
        x = x.to(kind)
        torch.library.opcheck(operators.lif_operator, (x, v, v, v, 0.5, 1.0))
        for mean in (None, v):
            torch.library.opcheck(operators.lif_backward_operator, (x, v, v, v, mean, x, v, 0.5, 1.0, 2.0, True))
        torch.library.opcheck(operators.moments, (x,))
        torch.library.opcheck(operators.norm_backward, (x.clone(), x, v, v, v, v))


def test_bfloat16_currents_are_kept_without_a_copy():
    x = numbers(1, (9, 5, 10))[0].to(BF16).requires_grad_()
    held = []

    def hold(tensor):
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        s, _ = lif(x, torch.zeros(5, 10), 0.5, 0.8, 2.0)
    assert [one.data_ptr() for one in held if one.numel() == x.numel()] == [x.data_ptr()]
    s.sum().backward()
    wide = x.detach().float().requires_grad_()
    lif(wide, torch.zeros(5, 10), 0.5, 0.8, 2.0)[0].sum().backward()
    assert s.dtype == BF16 and torch.equal(x.grad, wide.grad.to(BF16))
