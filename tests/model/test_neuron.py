"""Eq. 2, 3 and decisions 1, 2: the neuron against loops in double precision, spikingjelly and snntorch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_model import array, loop_lif
from spikingjelly.activation_based import functional, monitor, neuron, surrogate
from spikingjelly.activation_based.base import to_functional_forward

from ashnets.errors import InputError
from ashnets.kernels import operators
from ashnets.model.integer import integer_lif
from ashnets.model.neuron import LIF, lif, surrogate_derivative

# Multiples of 1/64 below 4, decays of 6 bits and few steps: every number below is exact in float32, so that the loops
# in double precision and the module must agree to the bit, also at the threshold itself.
sixty_fourths = st.integers(-256, 256).map(lambda n: n / 64)
decays = st.sampled_from([0.0, 0.25, 0.5, 0.75, 15 / 16])
thresholds = st.sampled_from([0.25, 0.5, 1.0, 1.5])


@st.composite
def sequences(draw):
    steps, neurons = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    x = draw(st.lists(sixty_fourths, min_size=steps * neurons, max_size=steps * neurons))
    v = draw(st.lists(sixty_fourths, min_size=neurons, max_size=neurons))
    return torch.tensor(x).view(steps, neurons), torch.tensor(v)


def tracked(x: torch.Tensor) -> torch.Tensor:
    return x.clone().requires_grad_()


@given(sequences(), decays, thresholds)
def test_forward_and_state_are_those_of_the_loop(sequence, beta, theta):
    x, v = sequence
    spikes, last = loop_lif(array(x), array(v), beta, theta)
    for currents in (x, tracked(x)):  # without and with a gradient
        s, membrane = lif(currents, v, beta, theta, k=2.0)
        np.testing.assert_array_equal(array(s), spikes)
        np.testing.assert_array_equal(array(membrane), last)
        assert s.dtype == membrane.dtype == torch.float32


@given(sequences(), decays, thresholds)
def test_snntorch_agrees(sequence, beta, theta):
    x, v = sequence
    node = snntorch.Leaky(beta=beta, threshold=theta, reset_mechanism="zero", reset_delay=False)
    # handed a membrane above the threshold, snntorch resets it first
    v = v.clamp_max(theta)
    expected, membrane = [], v
    for current in x:
        fired, membrane = node(current, membrane)
        expected.append(fired)
    s, last = lif(x, v, beta, theta, k=2.0)
    assert torch.equal(s, torch.stack(expected))
    assert torch.equal(last, membrane)


def test_threshold_is_strict():
    at, above = 1.0, float(np.nextafter(np.float32(1), np.float32(2)))
    x = torch.tensor([[at, above]])
    for currents in (x, tracked(x)):
        s, v = lif(currents, torch.zeros(2), beta=0.5, theta=1.0, k=2.0)
        assert s.tolist() == [[0.0, 1.0]]
        assert v.tolist() == [1.0, 0.0]
    # spikingjelly's node fires at the threshold: the one difference between the two
    node = neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=1.0, v_reset=0.0, step_mode="m")
    assert node(x).tolist() == [[1.0, 1.0]]


def test_reset_happens_on_spikes_only():
    # by hand, β = 1/2, θ = 1:  h = 0.75 | 0.375+0.5 = 0.875 | 0.4375+0.75 = 1.1875 ↯ 0 | −3 | −1.5
    x = torch.tensor([0.75, 0.5, 0.75, -3.0, 0.0]).view(5, 1)
    trace, v = [], torch.zeros(1)
    for step in x:
        s, v = lif(step.unsqueeze(0), v, beta=0.5, theta=1.0, k=2.0)
        trace.append((s.item(), v.item()))
    assert trace == [(0, 0.75), (0, 0.875), (1, 0.0), (0, -3.0), (0, -1.5)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4096))
def test_training_and_inference_run_the_same_arithmetic(seed, decay_k):
    """With any 12-bit decay, spikes and membranes of the two paths are equal to the bit, at any place of a neuron."""
    generator = torch.Generator().manual_seed(seed)
    x, v = torch.randn(6, 37, generator=generator), torch.randn(37, generator=generator)
    beta = 1 - decay_k / 4096
    s, last = lif(x, v, beta, 0.7, 2.0)
    s_grad, last_grad = lif(tracked(x), v, beta, 0.7, 2.0)
    assert torch.equal(s, s_grad)
    assert torch.equal(last, last_grad)
    alone, last_alone = lif(x[:, 31:32], v[31:32], beta, 0.7, 2.0)
    assert torch.equal(alone, s[:, 31:32])
    assert torch.equal(last_alone, last[31:32])


@pytest.mark.parametrize("grad", [False, True])
def test_steps_one_by_one_equal_a_sequence(grad):
    torch.manual_seed(0)
    x, v = torch.randn(9, 2, 5), torch.randn(2, 5)
    whole, last = lif(tracked(x) if grad else x, v, 0.6, 0.5, 2.0)
    parts, membrane = [], v
    for chunk in (x[:1], x[1:5], x[5:]):
        s, membrane = lif(tracked(chunk) if grad else chunk, membrane, 0.6, 0.5, 2.0)
        parts.append(s)
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(last, membrane)


@pytest.mark.parametrize("k", [0.5, 2.0, 10.0])
def test_surrogate_is_the_derivative_of_the_tanh_step(k):
    d = torch.linspace(-2, 2, 41, dtype=torch.float64)
    step = 1e-6
    soft = [(1 + torch.tanh(k * (d + sign * step))) / 2 for sign in (1, -1)]
    difference = (soft[0] - soft[1]) / (2 * step)
    torch.testing.assert_close(surrogate_derivative(d, k), difference, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(surrogate_derivative(d, k), (k / 2) / torch.cosh(k * d) ** 2, rtol=1e-9, atol=1e-12)
    # spikingjelly's Sigmoid(α = 2k), the free oracle of decision 2
    x = d.clone().requires_grad_()
    surrogate.Sigmoid(alpha=2 * k)(x).sum().backward()
    torch.testing.assert_close(surrogate_derivative(d, k), x.grad)


def test_surrogate_vanishes_far_from_the_threshold():
    slope = surrogate_derivative(torch.tensor([-1e30, -100.0, 100.0, 1e30]), 2.0)
    assert torch.equal(slope, torch.zeros(4))


def loss_weights(spikes: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(spikes.shape, generator=generator), torch.randn(v.shape, generator=generator)


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("k", [1.0, 2.0, 5.0])
def test_gradient_equals_spikingjelly(detach_reset, k):
    torch.manual_seed(1)
    x, v0 = torch.randn(12, 4, 6) * 0.8, torch.randn(4, 6)
    gradients = []
    for ours in (True, False):
        currents, start = tracked(x), tracked(v0)
        if ours:
            s, v = lif(currents, start, beta=0.75, theta=0.9, k=k, detach_reset=detach_reset)
        else:
            node = neuron.LIFNode(
                tau=4.0,
                decay_input=False,
                v_threshold=0.9,
                v_reset=0.0,
                step_mode="m",
                detach_reset=detach_reset,
                surrogate_function=surrogate.Sigmoid(alpha=2 * k),
            )
            node.v = start
            s, v = node(currents), node.v
        ws, wv = loss_weights(s, v)
        ((s * ws).sum() + (v * wv).sum()).backward()
        gradients.append((s.detach(), v.detach(), currents.grad, start.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert gradients[0][0].mean() > 0.1
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def loop_gradient(x, v0, beta, theta, k, detach_reset, ws, wv):
    """dL/dx and dL/dv0 for one neuron in forward mode: the Jacobian of each step with H' replaced by hand."""
    steps = len(x)
    grad = np.zeros(steps + 1)  # for x[0..T−1] and v0
    v, dv = v0, np.zeros(steps + 1)
    dv[steps] = 1.0
    for t in range(steps):
        dh = beta * dv
        dh[t] += 1.0
        h = beta * v + x[t]
        s = 1.0 if h > theta else 0.0
        ds = (k / 2) / np.cosh(k * (h - theta)) ** 2 * dh
        grad += ws[t] * ds
        dv = (1 - s) * dh - (0 if detach_reset else h) * ds
        v = (1 - s) * h
    return grad + wv * dv


@pytest.mark.parametrize("detach_reset", [True, False])
@given(sequences(), decays, thresholds, st.sampled_from([0.5, 2.0, 4.0]))
def test_gradient_equals_a_forward_mode_loop(detach_reset, sequence, beta, theta, k):
    x, v0 = sequence
    currents, start = tracked(x), tracked(v0)
    s, v = lif(currents, start, beta, theta, k, detach_reset)
    ws, wv = loss_weights(s, v)
    ((s * ws).sum() + (v * wv).sum()).backward()
    for i in range(x.shape[1]):
        expected = loop_gradient(
            array(x)[:, i], array(v0)[i], beta, theta, k, detach_reset, array(ws)[:, i], array(wv)[i]
        )
        np.testing.assert_allclose(array(currents.grad)[:, i], expected[:-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(array(start.grad)[i], expected[-1], rtol=1e-4, atol=1e-5)


def test_gradient_below_the_threshold_is_the_leak():
    """Where nothing fires, the membrane is linear in the currents: dv[T]/dx[t] = β^(T−1−t)."""
    x = tracked(torch.zeros(4, 1))
    _, v = lif(x, torch.zeros(1), beta=0.5, theta=1.0, k=2.0)
    v.sum().backward()
    assert x.grad.flatten().tolist() == [0.125, 0.25, 0.5, 1.0]


def test_second_derivatives_are_refused():
    """The hand-written adjoint has no second derivative: it raises an error instead of returning a wrong one."""
    x = tracked(torch.ones(3, 1))
    s, _ = lif(x, torch.zeros(1), 0.5, 1.0, 2.0)
    (first,) = torch.autograd.grad(s.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_membrane_is_float32_whatever_the_currents_are(dtype, grad):
    torch.manual_seed(2)
    x = torch.randn(20, 3, 7).to(dtype)
    spikes, last = loop_lif(array(x.float()), np.zeros((3, 7)), 0.5, 0.75)
    currents = tracked(x) if grad else x
    s, v = lif(currents, torch.zeros(3, 7), 0.5, 0.75, 2.0)
    assert s.dtype == dtype
    assert v.dtype == torch.float32
    np.testing.assert_array_equal(array(s), spikes)
    np.testing.assert_allclose(array(v), last, rtol=1e-6, atol=1e-7)
    if grad:
        s.sum().backward()
        assert currents.grad.dtype == dtype
        reference = tracked(x.float())
        lif(reference, torch.zeros(3, 7), 0.5, 0.75, 2.0)[0].sum().backward()
        torch.testing.assert_close(currents.grad.float(), reference.grad, rtol=1e-2, atol=1e-3)


def test_bf16_would_lose_small_currents():
    """Why the membrane stays float32: with currents of 1/1024 it crosses θ = 1 at step 1,178, in bfloat16 never."""
    x = torch.full((1200, 1), 1 / 1024).bfloat16()
    s, _ = lif(x, torch.zeros(1), beta=1 - 1 / 4096, theta=1.0, k=2.0)
    assert s.flatten().nonzero().tolist() == [[1178]]
    v = torch.zeros(1, dtype=torch.bfloat16)
    for step in x:
        v = v * (1 - 1 / 4096) + step
    assert v < 0.5


# --- the module


def module(**changes) -> LIF:
    return LIF(**{"beta": 0.5, "theta": 1.0, "k": 2.0, **changes})


def test_single_step_mode_equals_multi_step_mode():
    torch.manual_seed(3)
    x = torch.randn(7, 2, 3, 4, 4)
    many, single = module(), module()
    functional.set_step_mode(single, "s")
    expected = many(x)
    assert torch.equal(expected, torch.stack([single(step) for step in x]))
    assert torch.equal(many.v, single.v)
    assert expected.sum() > 0


def test_reset_net_returns_to_the_reset_state():
    torch.manual_seed(4)
    x = torch.randn(5, 2, 3)
    net = torch.nn.Sequential(module(), module(theta=0.25))
    first = net(x)
    carried = net(x)
    assert not torch.equal(first, carried)
    functional.reset_net(net)
    assert net[0].v == 0.0
    assert torch.equal(first, net(x))


def test_another_batch_size_starts_from_a_reset_state():
    """As spikingjelly's own nodes do."""
    node = module()
    node(torch.full((3, 4), 0.5))
    assert torch.equal(node(torch.ones(2, 6)), torch.stack([torch.zeros(6), torch.ones(6)]))


@pytest.mark.parametrize("decay_k", [1, 2048, 4096])
def test_tau_and_beta_describe_the_same_leak(decay_k):
    beta = 1 - decay_k / 4096
    node = module(beta=beta)
    assert node.tau == pytest.approx(1 / (1 - beta))
    assert not node.decay_input
    x = torch.full((1, 1), 0.75)
    node(x)
    node(torch.zeros(1, 1))
    assert node.v.item() == pytest.approx(0.75 * (1 - 1 / node.tau), abs=1e-7)


def test_monitors_see_spikes_and_membranes():
    torch.manual_seed(5)
    x = torch.randn(6, 2, 3)
    net = torch.nn.Sequential(module(), module(theta=0.5))
    for node in net:
        node.store_v_seq = True
    with (
        monitor.OutputMonitor(net, LIF) as spikes,
        monitor.AttributeMonitor("v_seq", pre_forward=False, net=net, instance=LIF) as membranes,
    ):
        out = net(x)
    first, last = loop_lif(array(x), np.zeros((2, 3)), 0.5, 1.0)
    np.testing.assert_array_equal(array(spikes["0"][0]), first)
    assert torch.equal(spikes["1"][0], out)
    np.testing.assert_allclose(array(membranes["0"][0][-1]), last, atol=1e-6)
    assert membranes["0"][0].shape == (6, 2, 3)


def test_gradient_monitor_sees_the_surrogate():
    net = torch.nn.Sequential(module())
    x = tracked(torch.zeros(1, 1))
    with monitor.GradInputMonitor(net, LIF) as gradients:
        net(x).sum().backward()
    assert gradients["0"][0].item() == pytest.approx(1 / np.cosh(2) ** 2)


def test_functional_form_of_spikingjelly_takes_and_returns_state():
    torch.manual_seed(6)
    x, v = torch.randn(4, 3), torch.randn(3)
    (s,), (last,) = to_functional_forward(module())((x,), (v,))
    expected, membrane = lif(x, v, 0.5, 1.0, 2.0)
    assert torch.equal(s, expected)
    assert torch.equal(last, membrane)


def test_module_can_be_copied_and_moved_between_types_with_a_membrane():
    node = module()
    with torch.no_grad():
        node(torch.full((3, 2), 0.3))
    twin = copy.deepcopy(node)
    assert torch.equal(twin.v, node.v)
    assert twin.v.data_ptr() != node.v.data_ptr()
    node.bfloat16()
    node(torch.full((1, 2), 0.3, dtype=torch.bfloat16))
    assert node.v.dtype == torch.float32


@pytest.mark.parametrize(("shape", "state"), [((4, 3, 7), (1, 7)), ((4, 3, 7), (21,)), ((9, 50), (1,)), ((9, 50), ())])
def test_a_membrane_of_another_shape_is_refused(shape, state):
    """The kernels write as many membranes as a step has neurons."""
    x, v = torch.randn(shape), torch.zeros(state)
    with pytest.raises(InputError, match="values for the neurons"):
        lif(x, v, 0.5, 1.0, 2.0)
    with pytest.raises(InputError, match="values for the neurons"):
        integer_lif(x, v, torch.zeros(()), 64, 2048, 1.0, 2.0)


def test_a_sequence_without_steps_is_refused():
    with pytest.raises(InputError, match="give at least one step"):
        lif(torch.zeros(0, 3), torch.zeros(3), 0.5, 1.0, 2.0)


def test_a_compiled_neuron_takes_transposed_currents():
    """Inductor compares the strides of the operators' fake results with those of the real ones."""
    x, v = torch.randn(50, 6).t(), torch.zeros(50)
    expected, *_ = lif(x, v, 0.5, 1.0, 2.0)
    torch.library.opcheck(operators.lif_operator, (x, v, None, None, 0.5, 1.0))
    torch.library.opcheck(operators.lif_backward_operator, (x, v, None, None, None, x, v, 0.5, 1.0, 2.0, True))
    found, _ = torch.compile(lambda x: lif(x, v, 0.5, 1.0, 2.0), backend="aot_eager")(x)
    assert torch.equal(found, expected)
