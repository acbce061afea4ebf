"""The integer kernels against loops in int64 and float64, and against their definition in torch."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ashnets.kernels import integer_cpu, integer_operators, integer_reference, threads
from ashnets.kernels.choosing import integer_kernels_for
from ashnets.model.integer import integer_lif

LIMIT = 2**23 - 1
LARGE = 2**17 - 1


def scalar(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def loop_forward(a, v, bias, threshold, decay):
    """Spikes, h and the last membrane in int64; the division is of magnitudes, the wrap a remainder."""
    spikes, membranes = np.zeros(a.shape, bool), np.zeros(a.shape, np.int64)
    for t in range(len(a)):
        u = (64 * a[t] + 2**23) % 2**24 - 2**23
        h = np.sign(v) * (abs(v) * (4096 - decay) // 4096) + u + 64 * bias
        h = np.where(h > LIMIT, LIMIT, np.where(h < -LIMIT, -LIMIT, h))
        spikes[t], membranes[t] = h > 64 * threshold, h
        v = np.where(spikes[t], 0, h)
    return spikes, membranes, v


def loop_backward(h, threshold, decay, step, grad_s, grad_v, k, detach):
    """The adjoint in float64, and its largest sum of magnitudes, which bounds float32's error where terms cancel."""
    unit, grad_a, largest = step / 64, np.zeros(h.shape), 0.0
    g = grad_v / unit
    for t in reversed(range(len(h))):
        d = (h[t] - 64 * threshold) * unit
        slope = (k / 2) / np.cosh(np.minimum(k * abs(d), 300)) ** 2
        through_reset = 0 * g if detach else g * h[t] * unit
        largest = max(largest, (slope * (abs(grad_s[t]) + abs(through_reset)) + abs(g)).max() * step)
        g = slope * (grad_s[t] - through_reset) + np.where(d > 0, 0, g)
        g = np.where(abs(h[t]) == LIMIT, 0, g)
        grad_a[t] = g * step
        g = g * (1 - decay / 4096)
    return (grad_a, g * unit, grad_a.sum(0)), largest


def draw(seed: int, steps: int, neurons: int, spread: int, threshold: int):
    """Integers of every regime: near the threshold, at it, at both limits, beyond 24 bits."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-spread, spread + 1, (steps, neurons))
    far = rng.random(a.shape) < 0.1
    a[far] = rng.choice([LARGE, -LARGE, -LARGE - 1, LARGE + 1, 2**19 + 5, -(2**20) - 3, threshold], far.sum())
    v = rng.integers(-LIMIT, LIMIT + 1, neurons)
    some = rng.random(neurons) < 0.3
    v[some] = rng.choice([0, 1, -1, 4095, -4095, 4096, LIMIT, -LIMIT, 64 * threshold], some.sum())
    bias = rng.integers(-4096, 4097, neurons)
    bias[rng.random(neurons) < 0.3] = 0
    return a, v, bias, rng.standard_normal(a.shape), rng.standard_normal(neurons)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(one).float() for one in arrays]


@settings(max_examples=80)
@example(9, 100, 582, 100, 1028, 0, 0.046875, 2.0, False)  # terms cancel to 1 % of the largest gradient's last bits
@given(
    st.integers(1, 12),
    st.integers(1, 150),
    st.integers(0, 2**32 - 1),
    st.sampled_from([100, 5000, 2**17, 2**20]),
    st.integers(0, LARGE) | st.integers(0, 300),
    st.integers(0, 4096),
    st.floats(1e-4, 0.05),
    st.floats(0.5, 4.0),
    st.booleans(),
)
def test_kernels_equal_the_loops(steps, neurons, seed, spread, threshold, decay, step, k, detach):
    a, v, bias, grad_s, grad_v = draw(seed, steps, neurons, spread, threshold)
    grad_v *= step / 64  # of the order that a gradient of the float membrane has
    spikes, h, last = loop_forward(a, v, bias, threshold, decay)
    true, largest = loop_backward(h, threshold, decay, step, grad_s, grad_v, k, detach)
    a, v, bias, grad_s, grad_v = tensors(a, v, bias, grad_s, grad_v)
    for module in (integer_cpu, integer_reference):
        found = module.lif_forward(a, v, bias, scalar(threshold), decay)
        assert np.array_equal(found[0].numpy(), spikes.astype(np.float32))
        assert np.array_equal(found[1].numpy(), last.astype(np.float32))
        back = module.lif_backward(a, v, bias, scalar(threshold), decay, scalar(step), grad_s, grad_v, k, detach)
        for ours, expected, per in zip(back, true, (1, 64, 1), strict=True):  # v̄ is by a 64th of a step
            np.testing.assert_allclose(ours.double().numpy(), expected, rtol=2e-4, atol=2e-5 * largest / per + 1e-12)


@pytest.mark.parametrize("decay", [0, 1, 1234, 4095, 4096])
def test_millions_of_neuron_steps_by_the_kernel(decay):
    """2.4 million each, on threads; the wrap, the threshold and both limits are met."""
    threshold = 3000
    a, v, bias, *_ = draw(decay, 12, 200_000, 6000, threshold)
    a[0, :1000], v[:1000], bias[:1000] = threshold, 0, 0  # exactly at the threshold
    a[0, 1000:2000], v[1000:2000], bias[1000:2000] = threshold, 4096, 0  # above it by what decay leaves
    spikes, h, last = loop_forward(a, v, bias, threshold, decay)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found, end = integer_cpu.lif_forward(*tensors(a, v, bias), scalar(threshold), decay)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found.bool().numpy(), spikes) and np.array_equal(end.long().numpy(), last)
    assert not spikes[0, :1000].any() and spikes[0, 1000:2000].all() == (decay < 4096)
    assert (h == LIMIT).sum() > 1000 and (h == -LIMIT).sum() > 1000 and (h == 64 * threshold).sum() > 1000
    assert 0.05 < spikes.mean() < 0.95


def test_every_membrane_decays_exactly():
    """All 2²⁴ − 1 of them: the product of 36 bits, in parts."""
    v = np.arange(-LIMIT, LIMIT + 1)
    silent = torch.zeros(1, len(v))
    for decay in (1723, 4095):
        _, last = integer_cpu.lif_forward(silent, *tensors(v, 0 * v), scalar(LARGE), decay)
        kept = np.sign(v) * (abs(v) * (4096 - decay) // 4096)
        # the threshold lies below the limit
        assert np.array_equal(last.numpy().astype(np.int64), np.where(kept > 64 * LARGE, 0, kept))


def test_currents_are_rounded_as_torch_rounds_them():
    a = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, 3.4, -3.6, 131071.5, -131072.5, 8388607.5, 2.0**30 + 64]])
    zero = torch.zeros(a.shape[1])
    _, last = integer_cpu.lif_forward(a, zero, zero, scalar(LARGE), 1)
    assert last[:7].tolist() == [0, 128, 128, 0, -128, 192, -256]
    u = (64 * a.double().round().long() + 2**23) % 2**24 - 2**23
    assert torch.equal(last.long(), u[0].clamp_min(-LIMIT))


def test_a_bias_or_threshold_beyond_a_chip_s_acts_like_the_definition_s():
    """A compiled graph does not check its values, so values that fit no chip can reach it."""
    a = torch.full((2, 4), float(LARGE))
    bias, v = torch.tensor([0.0, 1e6, -1e6, 3e9]), torch.full((4,), float(LIMIT))
    for threshold in (3e9, float("inf"), float("nan"), -3e9):
        found = integer_cpu.lif_forward(a, v, bias, scalar(threshold), 5)
        expected = integer_reference.lif_forward(a, v, bias, scalar(threshold), 5)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", [(160, 5000), (10, 90_001), (3, 1), (2000, 500)])
def test_threads_and_blocks_change_nothing(monkeypatch, count, shape, pooled):
    if pooled:  # as where torch's OpenMP cannot be found
        monkeypatch.setattr(threads, "_openmp", lambda: 0)
    a, v, bias, grad_s, grad_v = tensors(*draw(3, *shape, 4000, 900))
    constants = (scalar(900), 1000, scalar(0.004), grad_s, grad_v, 2.0, True)
    true = integer_reference.lif_forward(a, v, bias, *constants[:2])
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        found = integer_cpu.lif_forward(a, v, bias, *constants[:2])
        back = integer_cpu.lif_backward(a, v, bias, *constants)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], true[0]) and torch.equal(found[1], true[1])
    a, v, bias, grad_s, grad_v = (one[..., -1:].contiguous() for one in (a, v, bias, grad_s, grad_v))
    alone = integer_cpu.lif_backward(a, v, bias, *constants[:3], grad_s, grad_v, 2.0, True)
    for whole, part in zip(back, alone, strict=True):
        torch.testing.assert_close(whole[..., -1:], part, rtol=1e-5, atol=1e-8)


def test_no_neurons_are_no_error():
    a, v = torch.zeros(3, 0), torch.zeros(0)
    s, last = integer_cpu.lif_forward(a, v, v, scalar(5), 1)
    assert (s.shape, last.shape) == ((3, 0), (0,))
    assert integer_cpu.lif_backward(a, v, v, scalar(5), 1, scalar(1), a, v, 2.0, True)[2].shape == (0,)


def test_operators_describe_themselves_to_the_compiler():
    a, v, bias, grad_s, grad_v = tensors(*draw(7, 4, 6, 500, 100))
    constants = (scalar(100), 1000)
    torch.library.opcheck(integer_operators.lif_operator, (a, v, bias, *constants))
    for grad in (grad_v, None):
        torch.library.opcheck(
            integer_operators.lif_backward, (a, v, bias, *constants, scalar(0.01), grad_s, grad, 2.0, True)
        )


def test_one_compiled_graph_trains_and_infers():
    """torch.compile compiles the whole neuron, with tensors as thresholds and steps, and gives the same bits."""
    a, v, bias, grad_s, grad_v = tensors(*draw(9, 6, 40, 500, 100))
    constants = (scalar(100), 1000, scalar(0.01), 2.0)

    def train(run):
        leaves = [one.clone().requires_grad_() for one in (a, v, bias)]
        s, last = run(*leaves, *constants)
        return s, last, *torch.autograd.grad((s, last), leaves, (grad_s, grad_v))

    compiled = torch.compile(integer_lif, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(train(compiled), train(integer_lif), strict=True):
        assert torch.equal(ours, eager)
    with torch.no_grad():
        assert torch.equal(compiled(a, v, bias, *constants)[0], integer_lif(a, v, bias, *constants)[0])


def test_currents_alone_are_kept_for_the_backward_pass():
    """No (T, N) membranes are stored, and no copy."""
    a, v, bias, *_ = tensors(*draw(1, 9, 50, 500, 100))
    a = a.view(9, 5, 10).requires_grad_()
    held = []

    def hold(tensor):
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        integer_lif(a, v.view(5, 10), bias.view(5, 10), 100, 1000, 0.01, 2.0)
    assert [one.data_ptr() for one in held if one.numel() >= a.numel()] == [a.data_ptr()]


def test_the_definition_in_torch_stands_in():
    """If requested, on devices without the kernel, and for types that the kernel does not read."""
    assert integer_kernels_for("cpu") is integer_cpu
    assert integer_kernels_for("cuda") is integer_reference
    a, v, bias, grad_s, grad_v = tensors(*draw(5, 7, 30, 500, 100))

    def train(kind):
        leaves = [one.clone().to(kind).requires_grad_() for one in (a, v, bias)]
        s, last = integer_lif(*leaves, 100, 900, 0.01, 2.0)
        return s, last, *torch.autograd.grad((s, last), leaves, (grad_s.to(kind), grad_v))

    for wide, own in zip(train(torch.float64), train(torch.float32), strict=True):
        torch.testing.assert_close(wide.float(), own, rtol=1e-4, atol=1e-7)
    code = """
from ashnets.kernels import choosing, integer_reference
assert choosing.integer_kernels_for("cpu") is integer_reference
"""
    environment = {**os.environ, "ASHNETS_KERNELS": "reference"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
