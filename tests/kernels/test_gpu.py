"""The Triton kernels against loops in double precision and against their definition in torch.

On a GPU where there is one, else in Triton's interpreter; what the compiler makes of them is read from its PTX.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ashnets.kernels import choosing, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def interpreter_without_a_gpu():
    """Triton reads the variable where a kernel is defined and where it is launched."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        yield


with interpreter_without_a_gpu():
    from ashnets.kernels import gpu


@pytest.fixture(autouse=True, scope="module")
def interpreter():
    with interpreter_without_a_gpu():
        yield


def numbers(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def on_device(function, *arguments):
    """The results of a call with all tensors on the device, copied back to the host."""
    found = function(*(a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in arguments))
    return tuple(None if one is None else one.cpu() for one in found)


def adjoint(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach, fired):
    """ȳ, v̄ and both sums in float64, for the spikes of the forward pass."""
    x, v, g, upstream = (a.double().numpy() for a in (x, v, grad_v, grad_s))
    y = x if scale is None else x * scale.double().numpy() + shift.double().numpy()
    h, grad = np.zeros_like(y), np.zeros_like(y)
    for t in range(len(y)):
        h[t] = beta * v + y[t]
        v = np.where(fired[t], 0.0, h[t])
    for t in reversed(range(len(y))):
        slope = (k / 2) / np.cosh(np.minimum(k * np.abs(h[t] - theta), 300)) ** 2
        grad[t] = slope * (upstream[t] - (0.0 if detach else g * h[t])) + np.where(fired[t], 0.0, g)
        g = beta * grad[t]
    return grad, g, grad.sum(0), (grad * (x - mean.double().numpy())).sum(0)


def check_lif(steps, neurons, seed, beta, theta, k, affine, detach, sums):
    x, v, scale, shift, mean, grad_s, grad_v = numbers(
        seed, (steps, neurons), (neurons,), (neurons,), (neurons,), (neurons,), (steps, neurons), (neurons,)
    )
    if not affine:
        scale = shift = None
    s, last = on_device(gpu.lif_forward, x, v, scale, shift, beta, theta)
    s_torch, last_torch = reference.lif_forward(x, v, scale, shift, beta, theta)
    assert torch.equal(s, s_torch)
    assert torch.equal(last, last_torch)
    true = adjoint(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach, s.numpy() == 1)
    center = mean if sums else None
    found = on_device(gpu.lif_backward, x, v, scale, shift, center, grad_s, grad_v, beta, theta, k, detach)
    if not sums:
        assert found[2:] == (None, None)
    for ours, expected in zip(found[: 4 if sums else 2], true, strict=False):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=2e-4, atol=2e-4 * max(1.0, np.abs(expected).max()))


@settings(max_examples=12)
@given(
    st.integers(1, 20),
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4096),
    st.floats(0.1, 3.0),
    st.floats(0.5, 8.0),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_kernels_equal_the_loops(steps, neurons, seed, decay, theta, k, affine, detach, sums):
    check_lif(steps, neurons, seed, 1 - decay / 4096, theta, k, affine, detach, sums)


@pytest.mark.parametrize(("steps", "neurons"), [(1, 1), (16, 128), (17, 129), (64, 40), (67, 16)])
def test_segments_and_blocks_meet_without_a_seam(steps, neurons):
    check_lif(steps, neurons, 11, 0.9, 0.8, 2.0, True, False, True)


def test_slope_is_exact_to_single_precision():
    """One step from a reset state: the gradient is the surrogate's derivative itself, over its whole range."""
    h = torch.cat([torch.linspace(-12, 14, 1001), torch.tensor([1.0, 1.0000001, 1e20, -1e20])]).view(1, -1)
    one, zero = torch.ones_like(h), torch.zeros(h.shape[1])
    grad, *_ = on_device(gpu.lif_backward, h, zero, None, None, None, one, zero, 0.5, 1.0, 2.0, True)
    with np.errstate(over="ignore"):
        true = 1 / np.cosh(2.0 * (h.double().numpy() - 1.0)) ** 2
    np.testing.assert_allclose(grad.numpy(), true, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("steps", [1, 3, 160])
def test_moments_are_exact_where_the_mean_dwarfs_the_spread(steps):
    x = numbers(3, (steps, 300))[0] * 0.01 + 100
    mean, square = on_device(gpu.moments, x)
    wide = x.double()
    np.testing.assert_allclose(mean.double(), wide.mean(0), rtol=1e-7)
    np.testing.assert_allclose(square.double(), (wide - wide.mean(0)).square().sum(0), rtol=1e-4)


def test_moments_survive_a_first_step_far_from_the_rest():
    x = numbers(4, (160, 200))[0]
    x[0] = 1000.0
    mean, square = on_device(gpu.moments, x)
    wide = x.double()
    np.testing.assert_allclose(mean.double(), wide.mean(0), rtol=0, atol=2e-7 * 1000)
    np.testing.assert_allclose(square.double(), (wide - wide.mean(0)).square().sum(0), rtol=1e-4)


@pytest.mark.parametrize(("steps", "neurons"), [(1, 1), (9, 300), (35, 130)])
def test_norm_backward(steps, neurons):
    grad, x, *vectors = numbers(9, (steps, neurons), (steps, neurons), *[(neurons,)] * 4)
    mean, factor, grad_mean, product = (v.double() for v in vectors)
    true = factor * (grad.double() - grad_mean) - product * (x.double() - mean)
    found = grad.to(DEVICE, copy=True)
    gpu.norm_backward(found, *(a.to(DEVICE) for a in (x, *vectors)))
    torch.testing.assert_close(found.cpu().double(), true, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_currents_meet_membranes_in_single_precision(half):
    x, v, scale, grad_s = numbers(13, (20, 70), (70,), (70,), (20, 70))
    x, grad_s = x.to(half), grad_s.to(half)
    s, last = on_device(gpu.lif_forward, x, v, scale, v, 0.75, 0.6)
    s_single, last_single = reference.lif_forward(x.float(), v, scale, v, 0.75, 0.6)
    assert s.dtype == half
    assert torch.equal(s.float(), s_single)
    assert torch.equal(last, last_single)
    found = on_device(gpu.lif_backward, x, v, scale, v, v, grad_s, v, 0.75, 0.6, 2.0, True)
    true = reference.lif_backward(x.float(), v, scale, v, v, grad_s.float(), v, 0.75, 0.6, 2.0, True)
    torch.testing.assert_close(found[0], true[0].to(half), rtol=2 * torch.finfo(half).eps, atol=1e-4)
    for ours, expected in zip(found[1:], true[1:], strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-4, atol=2e-4)
    for ours, expected in zip(on_device(gpu.moments, x), reference.moments(x.float()), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_no_neurons_are_no_error():
    x, v = torch.empty(3, 0, device=DEVICE), torch.empty(0, device=DEVICE)
    s, last = gpu.lif_forward(x, v, None, None, 0.5, 1.0)
    assert (s.shape, last.shape) == ((3, 0), (0,))
    assert gpu.lif_backward(x, v, None, None, v, x, v, 0.5, 1.0, 2.0, True)[2].shape == (0,)


def test_without_a_c_compiler_the_definitions_run(monkeypatch, caplog):
    """The error is Triton's own, of its search for a compiler; the GPU is only said to be there."""
    from triton.runtime import build

    def try_out(device: str) -> None:
        assert device == "cuda"
        build._build("launcher", "", "", [], [], [], [])

    gpu.try_out(DEVICE)
    for name in ("ASHNETS_KERNELS", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(build, "_find_compiler", build._find_compiler.__wrapped__)  # which remembers what it found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "try_out", try_out)
    choosing._works.cache_clear()
    try:
        found = [choosing.kernels_for.__wrapped__("cuda") for _ in range(2)]
    finally:
        choosing._works.cache_clear()
    assert found == [reference, reference]
    (said,) = caplog.messages
    assert "Failed to find C compiler" in said and "apt-get install gcc" in said


COMPILE = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ashnets.kernels import gpu

scalars = {"steps": "i32", "neurons": "i32", "beta": "fp32", "theta": "fp32", "k2": "fp32"}
words = {"fused": "fma.rn.f32", "product": "mul.rn.f32", "load": "ld.global", "store": "st.global", "spill": ".local"}

def count(kernel, constants, **options):
    types = {name: "constexpr" if name in constants else scalars.get(name, "*fp32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature=types, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={**gpu.OPTIONS, **options})
    return {name: made.asm["ptx"].count(word) for name, word in words.items()}

one = {"K": 4, "BLOCK": 128}
print(json.dumps([
    count(gpu.ashnets_lif_forward, one),
    count(gpu.ashnets_lif_forward, one, enable_fp_fusion=True),
    count(gpu.ashnets_lif_backward, {**one, "DETACH": True}),
]))
"""


def test_compiled_kernels_round_each_product_and_touch_memory_once(tmp_path, monkeypatch, caplog):
    """Compilation for an A100 needs no GPU; the interpreter rounds each product with any options."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ASHNETS_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert choosing.kernels_for.__wrapped__("cuda") is gpu
    assert "Triton compiles the spiking kernels" in caplog.text
    caplog.clear()

    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=True, timeout=250)
    forward, fused, backward = json.loads(done.stdout)
    # x·a and β·v in each of four steps; v, a, c and x in; s and v out
    assert forward == {"fused": 0, "product": 8, "load": 3 + 4, "store": 4 + 1, "spill": 0}
    assert fused["fused"] == 8
    assert (backward["fused"], backward["spill"]) == (0, 0)
    # both sweeps read x, the second one the upstream gradient; v₀ is read twice, kept once, with five more vectors
    assert backward["load"] == 4 + 2 * 4 + 2 + 1 + 4
    assert backward["store"] == 4 + 1 + 3
    assert choosing.kernels_for.__wrapped__("cuda") is gpu
    assert caplog.text == ""
