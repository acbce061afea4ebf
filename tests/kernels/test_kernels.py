"""The compiled kernels against loops in double precision and against their definition in torch."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import caching

from ashnets.kernels import compiling, cpu, operators, reference, threads
from ashnets.kernels.choosing import kernels_for
from ashnets.kernels.compiling import kernel
from ashnets.kernels.regions import in_shares
from ashnets.kernels.threads import over_neurons


@st.composite
def cases(draw):
    """(T, N), the seed of the draws, β, θ, k, whether an affine map comes first, whether the reset is detached."""
    return (
        draw(st.tuples(st.integers(1, 12), st.integers(1, 200))),
        draw(st.integers(0, 2**32 - 1)),
        1 - draw(st.integers(1, 4096)) / 4096,
        draw(st.floats(0.1, 3.0)),
        draw(st.floats(0.5, 8.0)),
        draw(st.booleans()),
        draw(st.booleans()),
    )


def numbers(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def loop_backward(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach, fired):
    """The adjoint of one neuron after another in float64, for the spikes of the forward pass."""
    steps, neurons = x.shape
    x, v, grad_s, grad_v = (a.double().numpy() for a in (x, v, grad_s, grad_v))
    grad_y, grad_v0 = np.zeros((steps, neurons)), np.zeros(neurons)
    for j in range(neurons):
        a, c = (1.0, 0.0) if scale is None else (float(scale[j]), float(shift[j]))
        h, before = [], float(v[j])
        for t in range(steps):
            h.append(beta * before + x[t, j] * a + c)
            before = 0.0 if fired[t, j] else h[t]
        g = float(grad_v[j])
        for t in reversed(range(steps)):
            through = grad_s[t, j] - (0.0 if detach else g * h[t])
            grad_y[t, j] = (k / 2) / np.cosh(min(k * abs(h[t] - theta), 300)) ** 2 * through
            grad_y[t, j] += 0.0 if fired[t, j] else g
            g = beta * grad_y[t, j]
        grad_v0[j] = g
    return grad_y, grad_v0, grad_y.sum(0), (grad_y * (x - mean.double().numpy())).sum(0)


@settings(deadline=None, max_examples=60)
@given(cases())
def test_kernels_equal_the_loops(case):
    (steps, neurons), seed, beta, theta, k, affine, detach = case
    x, v, scale, shift, mean, grad_s, grad_v = numbers(
        seed, (steps, neurons), (neurons,), (neurons,), (neurons,), (neurons,), (steps, neurons), (neurons,)
    )
    if not affine:
        scale = shift = None
    s, last = cpu.lif_forward(x, v, scale, shift, beta, theta)
    s_torch, last_torch = reference.lif_forward(x, v, scale, shift, beta, theta)
    assert torch.equal(s, s_torch)
    assert torch.equal(last, last_torch)
    # the same recursion in double precision, where it does not fire otherwise within rounding of the threshold
    h, near = v.double(), False
    for t in range(steps):
        y = x[t].double() if scale is None else x[t].double() * scale.double() + shift.double()
        h = np.float32(beta) * h + y
        near = near or bool(((h - theta).abs() < 1e-5).any())
        if near:
            break
        assert torch.equal(h > theta, s[t] == 1)
        h = h.masked_fill(h > theta, 0.0)
    expected = loop_backward(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach, s.numpy() == 1)
    for module in (cpu, reference):
        found = module.lif_backward(x, v, scale, shift, mean, grad_s, grad_v, beta, theta, k, detach)
        for ours, true in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), true, rtol=2e-4, atol=2e-4 * max(1.0, np.abs(true).max()))


@pytest.mark.parametrize("module", [cpu, reference])
def test_slope_is_exact_to_single_precision(module):
    """One step from a reset state: the gradient is the surrogate's derivative itself, over its whole range."""
    h = torch.cat([torch.linspace(-12, 14, 5001), torch.tensor([1.0, 1.0000001, 1e20, -1e20])]).view(1, -1)
    one, zero = torch.ones_like(h), torch.zeros(h.shape[1])
    grad, *_ = module.lif_backward(h, zero, None, None, None, one, zero, 0.5, 1.0, 2.0, True)
    with np.errstate(over="ignore"):
        true = 1 / np.cosh(2.0 * (h.double().numpy() - 1.0)) ** 2
    np.testing.assert_allclose(grad.numpy(), true, rtol=1e-6 if module is cpu else 1e-2, atol=2e-7)


def test_moments_are_exact_where_the_mean_dwarfs_the_spread():
    x = numbers(3, (160, 3000))[0] * 0.01 + 100
    mean, square = cpu.moments(x)
    wide = x.double()
    np.testing.assert_allclose(mean.double(), wide.mean(0), rtol=1e-7)
    np.testing.assert_allclose(square.double(), (wide - wide.mean(0)).square().sum(0), rtol=1e-4)


@given(st.integers(1, 9), st.integers(1, 300), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_norm_backward(steps, neurons, seed):
    grad, x, *vectors = numbers(seed, (steps, neurons), (steps, neurons), *[(neurons,)] * 4)
    mean, factor, grad_mean, product = (v.double() for v in vectors)
    true = factor * (grad.double() - grad_mean) - product * (x.double() - mean)
    for module in (cpu, reference):
        found = grad.clone()
        module.norm_backward(found, x, *vectors)
        torch.testing.assert_close(found.double(), true, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(160, 5000), (10, 70_001), (3, 1), (2000, 100)])
def test_threads_and_blocks_change_nothing(monkeypatch, count, shape, pooled):
    monkeypatch.setattr(threads, "worth_a_thread", lambda: threads._FEWEST)
    if pooled:  # as where torch's OpenMP cannot be found
        monkeypatch.setattr(threads, "_openmp", lambda: 0)
    x, v, grad_s, grad_v = numbers(5, shape, shape[1:], shape, shape[1:])
    true = reference.lif_forward(x, v, None, None, 0.75, 0.9)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        found = cpu.lif_forward(x, v, None, None, 0.75, 0.9)
        back = cpu.lif_backward(x, v, None, None, v, grad_s, grad_v, 0.75, 0.9, 2.0, True)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], true[0])
    assert torch.equal(found[1], true[1])
    x, v, grad_s, grad_v = (a[..., -1:].contiguous() for a in (x, v, grad_s, grad_v))
    alone = cpu.lif_backward(x, v, None, None, v, grad_s, grad_v, 0.75, 0.9, 2.0, True)
    for whole, part in zip(back, alone, strict=True):
        torch.testing.assert_close(whole[..., -1:], part, rtol=1e-5, atol=1e-6)


def test_the_threads_are_those_of_torch():
    """A region has the threads that a parallel operation of torch has started, and no other."""
    code = """
import ctypes, os
import numpy as np, torch
from numba import njit
from ashnets.kernels import threads
from ashnets.kernels.regions import in_shares

torch.set_num_threads(3)
torch.zeros(1 << 20).add_(1)
standing = set(os.listdir("/proc/self/task"))
address = threads._openmp()
libraries = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line and "/torch/" in line}
team_size = ctypes.CDLL(*libraries).omp_get_num_threads
team_size.argtypes, team_size.restype = [], ctypes.c_int

@njit(nogil=True)
def kernel(found, block, low, high):
    found[low:high] = team_size()

@njit(nogil=True)
def region(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, kernel, arguments)

found = np.zeros(100, np.int32)
region(address, 3, 24, 1, 0, 100, found)
assert (found == 3).all() and len(standing) >= 3, (found, standing)
assert standing == set(os.listdir("/proc/self/task"))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@kernel
def _fails_after_the_first_block(done, block, low, high):
    done[low:high] += 1
    if low > 0:
        raise MemoryError


@kernel
def _failing(parallel, workers, count, block, low, high, *arguments):
    in_shares(parallel, workers, count, block, low, high, _fails_after_the_first_block, arguments)


@pytest.mark.parametrize("pooled", [False, True])
def test_each_neuron_is_in_one_share_and_an_error_in_a_thread_is_raised(monkeypatch, pooled):
    monkeypatch.setattr(threads, "worth_a_thread", lambda: threads._FEWEST)
    if pooled:
        monkeypatch.setattr(threads, "_openmp", lambda: 0)
    done = np.zeros(10_001, np.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(MemoryError):
            over_neurons(_failing, (100, len(done)), 64, done)
    finally:
        torch.set_num_threads(before)
    assert (done == 1).all()


def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, numpy, torch
from ashnets.kernels import cpu, threads
threads.worth_a_thread = lambda: threads._FEWEST
torch.set_num_threads(2)
x, v = torch.randn(10, 100_000), torch.zeros(100_000)
whole = cpu.lif_forward(x, v, None, None, 0.5, 1.0)[0]
child = os.fork()
if child == 0:
    # torch's own threads stayed with the parent: nothing of torch's may run in parallel here
    found = cpu.lif_forward(x, v, None, None, 0.5, 1.0)[0]
    os._exit(0 if numpy.array_equal(found.numpy(), whole.numpy()) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_operators_describe_themselves_to_the_compiler():
    x, v, scale = numbers(7, (4, 6), (6,), (6,))
    torch.library.opcheck(operators.lif_operator, (x, v, None, None, 0.5, 1.0))
    torch.library.opcheck(operators.lif_operator, (x, v, scale, v, 0.5, 1.0))
    torch.library.opcheck(operators.lif_backward_operator, (x, v, scale, v, None, x, v, 0.5, 1.0, 2.0, True))
    torch.library.opcheck(operators.lif_backward_operator, (x, v, scale, v, v, x, v, 0.5, 1.0, 2.0, True))
    torch.library.opcheck(operators.moments, (x,))
    torch.library.opcheck(operators.norm_backward, (x.clone(), x, v, v, v, v))


def test_the_definition_in_torch_can_be_asked_for_and_gives_the_same_spikes():
    assert kernels_for("cpu") is cpu
    code = """
import torch
from ashnets.kernels import choosing, reference
assert choosing.kernels_for("cpu") is reference
from ashnets.model.neuron import lif
torch.manual_seed(0)
print(lif(torch.randn(20, 5), torch.zeros(5), 0.5, 0.7, 2.0)[0].int().tolist())
"""
    environment = {**os.environ, "ASHNETS_KERNELS": "reference"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    from ashnets.model.neuron import lif

    torch.manual_seed(0)
    assert out.stdout.strip() == str(lif(torch.randn(20, 5), torch.zeros(5), 0.5, 0.7, 2.0)[0].int().tolist())


def test_compilation_is_announced_and_kept_on_disk(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "ashnets.kernels"]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=250)
        for _ in range(2)
    )
    assert "compiling the spiking kernels" in first.stderr
    assert second.stderr == ""
    assert "ashnets.kernels.cpu" in second.stdout


@pytest.mark.parametrize(
    ("reported", "steps", "block"),
    [
        ("2048K\n", 160, 1600),
        ("2048K\n", 10, 2048),
        ("512K\n", 160, 768),
        ("none", 160, 768),
        (None, 160, 768),
        ("4096K\n", 10**6, 64),
    ],
)
def test_a_block_fills_half_of_the_second_level_cache(reported, steps, block, tmp_path, monkeypatch):
    """h of a block, 4 bytes per neuron and step, fills half of 2 MiB, or of 1 MiB if less or nothing is reported."""
    level = tmp_path / "size"
    if reported is not None:
        level.write_text(reported)
    monkeypatch.setattr(compiling, "_LEVEL_2", level)
    compiling._second_level.cache_clear()
    try:
        assert compiling.block_of(steps) == block
    finally:
        compiling._second_level.cache_clear()


@pytest.mark.parametrize("pays", [True, False])
def test_the_block_of_many_neurons_follows_the_measurement_and_changes_no_bit(pays, monkeypatch):
    threads_before, (steps, neurons) = torch.get_num_threads(), (128, 1 << 16)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, neurons, generator=generator)
    grad, v = torch.randn(steps, neurons, generator=generator), torch.zeros(neurons)
    expected = cpu.lif_forward(x[:, :500], v[:500], None, None, 0.5, 1.0)
    monkeypatch.setattr(cpu, "wide_blocks_pay", lambda: pays)
    torch.set_num_threads(1)
    try:
        wide = cpu.lif_block((steps, neurons))
        assert wide == (1 << 14 if pays else compiling.block_of(steps))
        assert cpu.lif_block((steps, 1 << 14)) == compiling.block_of(steps), "every thread gets two blocks"
        s, last = cpu.lif_forward(x, v, None, None, 0.5, 1.0)
        grad_x, *_ = cpu.lif_backward(x, v, None, None, None, grad, v, 0.5, 1.0, 2.0, True)
        part, *_ = cpu.lif_backward(x[:, :500], v[:500], None, None, None, grad[:, :500], v[:500], 0.5, 1.0, 2.0, True)
    finally:
        torch.set_num_threads(threads_before)
    assert torch.equal(s[:, :500], expected[0]) and torch.equal(last[:500], expected[1])
    torch.testing.assert_close(grad_x[:, :500], part, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("seconds", "pays"),
    [
        ([(1, 9), (3, 4), (5, 4)], True),
        ([(1, 9), (4, 3), (4, 5)], False),  # the first pair does not count
        ([(9, 1), (9, 4), (3, 8)], True),  # of each, the shortest counts
        ([(1, 2), (3, 3), (3, 3)], False),
    ],
)
def test_wide_blocks_pay_by_their_shortest_time(seconds, pays, monkeypatch):
    assert cpu._first_is_faster(seconds) is pays


def test_the_block_is_measured_with_the_kernels(monkeypatch):
    """Both blocks are timed seven times; the wide one comes first of each pair."""
    blocks, pairs, forward = [], [], cpu._forward
    monkeypatch.setattr(cpu, "_forward", lambda *given: blocks.append(given[-3]) or forward(*given))
    monkeypatch.setattr(cpu, "_first_is_faster", lambda found: pairs.extend(found) or True)
    cpu.wide_blocks_pay.cache_clear()
    try:
        assert cpu.wide_blocks_pay()
    finally:
        cpu.wide_blocks_pay.cache_clear()
    assert blocks == [cpu._WIDE, compiling.block_of(cpu._SAMPLE[0])] * 7 and len(pairs) == 7


@pytest.mark.parametrize("module", [cpu, reference])
def test_a_gradient_of_no_number_stays_one(module):
    x, v = torch.tensor([[math.nan], [1.0]]), torch.zeros(1)
    grad, *_ = module.lif_backward(x, v, None, None, None, torch.ones_like(x), v, 0.5, 1.0, 2.0, True)
    assert grad.isnan().any()


def test_kernels_that_cannot_be_kept_are_compiled_all_the_same(monkeypatch, caplog):
    """If neither the installation nor the home folder can be written, numba has no folder for its cache."""
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    compiling._say_not_kept.cache_clear()
    twice, thrice = compiling.kernel(lambda x: x + x), compiling.fused(lambda x: x + x + x)
    assert (twice(2), thrice(2)) == (4, 6)
    assert caplog.text.count("NUMBA_CACHE_DIR") == 1


def test_kernels_are_not_kept_in_a_folder_named_tilde(monkeypatch):
    """Without a home folder, `~` is not replaced: numba would write to a folder of this name in the current one."""
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compiling, "__file__", "/proc/none/compiling.py")  # nothing can be written beside it
    monkeypatch.setenv("HOME", "~")
    assert not compiling._can_be_kept()
    monkeypatch.setenv("HOME", "/home/somebody")
    assert compiling._can_be_kept()
    monkeypatch.setenv("HOME", "~")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/tmp/kernels")
    assert compiling._can_be_kept()


@pytest.mark.parametrize(
    ("start", "addition", "worth"),
    [
        (1e-4, 1e-10, 1_000_000),  # 2 · start / (2 · addition)
        (1e-6, 1e-10, 1 << 15),
        (1e-2, 1e-10, 1 << 22),
    ],
)
def test_another_thread_pays_within_its_bounds(start, addition, worth):
    assert threads._worth(start, addition) == pytest.approx(worth, abs=1)


def test_the_start_of_a_thread_is_measured(monkeypatch):
    """In this test a start takes 1 ms, and the addition of 2^14 numbers 16.384 µs, which is 1 ns for each."""
    given = iter((16.384e-6, 1e-3))

    def seconds(work):
        work()
        return next(given)

    monkeypatch.setattr(threads, "_median_seconds", seconds)
    threads.worth_a_thread.cache_clear()
    try:
        assert threads.worth_a_thread() == pytest.approx(1_000_000, abs=1)
    finally:
        threads.worth_a_thread.cache_clear()
