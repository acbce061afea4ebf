"""The integer neuron and its constants: by hand, against loops in Python integers and int64, and through autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ashnets.errors import ConfigurationError
from ashnets.model.integer import integer_constants, integer_lif, integers, straight_through

LIMIT = 2**23 - 1


def run(a, v, bias=0, threshold=100, decay=1024, **options):
    """Spikes and membrane as int64; equal with gradients enabled, and in the definition in plain torch."""
    a, v, bias = (torch.as_tensor(x).to(torch.float32) for x in (a, v, bias))
    spikes, last = integer_lif(a, v, bias, threshold, decay, step=0.01, k=2.0, **options)
    # the kernel is float32's
    for currents in (a.clone().requires_grad_(), a.double()):
        again = integer_lif(currents, v, bias, threshold, decay, step=0.01, k=2.0, **options)
        assert torch.equal(spikes, again[0].float()) and torch.equal(last, again[1])
    return spikes.long().numpy(), last.long().numpy()


def python_lif(a: list[int], v: int, bias: int, threshold: int, decay: int) -> tuple[list[int], int]:
    """One neuron in Python's integers, which do not round and do not overflow."""
    spikes = []
    for current in a:
        kept = abs(v) * (4096 - decay) >> 12
        u = (current << 6) & 0xFFFFFF
        u -= 0x1000000 if u >= 0x800000 else 0
        h = (kept if v >= 0 else -kept) + u + (bias << 6)
        h = max(-LIMIT, min(LIMIT, h))
        spikes.append(int(h > threshold << 6))
        v = 0 if spikes[-1] else h
    return spikes, v


def test_constants_by_hand():
    """Two weights: the largest becomes 254, the other an even number; bias and threshold are in 1/254 of it."""
    weight = torch.tensor([1.27, -0.63], dtype=torch.float64).view(1, 2, 1, 1)
    found = integer_constants(weight, torch.tensor([0.052]), theta=1.0, decay_k=1024)
    assert found.step == pytest.approx(0.005, rel=1e-12)
    assert found.weight.flatten().tolist() == [254, -126] and found.weight.dtype == torch.int32
    assert found.weight.shape == (1, 2, 1, 1)
    assert found.bias.tolist() == [10] and found.bias.dtype == torch.int32
    assert (found.threshold, found.decay) == (200, 1024)
    clipped = integer_constants(weight.expand(3, 2, 1, 1), torch.tensor([100.0, -100.0, 20.48]), 1.0, 1)
    assert clipped.bias.tolist() == [4096, -4096, 4096]


def test_a_neuron_by_hand():
    """k = 1024 keeps three quarters; both inputs fire: a = 128, u = 8192, bias 640, threshold 12800."""
    spikes, v = run([[128], [128], [-126], [0]], [0], bias=[10], threshold=200)
    # 8832 · 15456 > 12800, reset · -8064 + 640 · trunc(-5568) + 640
    assert spikes[:, 0].tolist() == [0, 1, 0, 0]
    assert v.tolist() == [int(-7424 * 3 / 4) + 640]


def test_truncation_is_toward_zero():
    _, v = run(torch.zeros(1, 4), [5, -5, 1, -1])  # ±3.75, ±0.75
    assert v.tolist() == [3, -3, 0, 0]
    _, v = run(torch.zeros(1, 2), [-LIMIT, LIMIT], decay=1, threshold=131071)
    assert v.tolist() == [-(LIMIT * 4095 // 4096), LIMIT * 4095 // 4096]


def test_the_threshold_is_strict():
    spikes, v = run([[100, 101, 100]], [0, 0, 2], threshold=100)
    assert spikes.tolist() == [[0, 1, 1]], "2 decays to 1, one unit above the threshold"
    assert v.tolist() == [6400, 0, 0]


def test_clipping_at_both_limits():
    """A threshold of 2¹⁷ − 1 is 63 units below the upper limit, so a clipped membrane still fires."""
    large = 2**17 - 1
    spikes, v = run(
        [[large, -large - 1, large]], [LIMIT, -LIMIT, -LIMIT], bias=[4096, -4096, 4096], threshold=large, decay=0
    )
    assert spikes.tolist() == [[1, 0, 0]]
    assert v.tolist() == [0, -LIMIT, 64 * (large + 4096) - LIMIT]
    spikes, v = run([[0, 0]], [LIMIT, LIMIT - 63], threshold=large, decay=0)
    assert spikes.tolist() == [[1, 0]] and v.tolist() == [0, LIMIT - 63]


def test_currents_wrap_at_24_bits():
    spikes, v = run([[2**17, 2**17 - 1, -(2**17) - 1, 2**18 + 3]], [0] * 4, threshold=2**17 - 1)
    assert v.tolist() == [-LIMIT, 64 * (2**17 - 1), 64 * (2**17 - 1), 3 * 64], "−2²³ is clipped to −(2²³ − 1)"
    assert not spikes.any()


sequences = st.lists(
    st.one_of(st.integers(-(2**17) + 1, 2**17 - 1), st.integers(-300, 300), st.integers(-(2**19), 2**19)),
    min_size=1,
    max_size=12,
)
membranes = st.one_of(st.integers(-LIMIT, LIMIT), st.integers(-9, 9), st.sampled_from([LIMIT, -LIMIT]))


@settings(max_examples=120)
@given(
    sequences,
    membranes,
    st.integers(-4096, 4096),
    st.one_of(st.integers(0, 2**17 - 1), st.integers(0, 300)),
    st.integers(0, 4096),
)
def test_equals_python_integers(a, v, bias, threshold, decay):
    wanted, last = python_lif(a, v, bias, threshold, decay)
    spikes, membrane = run([[x] for x in a], [v], [bias], threshold, decay)
    assert spikes[:, 0].tolist() == wanted and membrane.tolist() == [last]


@given(sequences, membranes, st.integers(0, 4096))
def test_exactly_at_the_threshold(a, v, decay):
    """The first neuron reaches exactly the threshold and does not spike; the next one is one unit above it."""
    kept = int(np.trunc(v * (4096 - decay) / 4096))
    start, threshold = -(kept // 64), 50_000 - 1
    if abs(start + threshold) >= 2**17:
        return
    first = threshold + start  # with the rest of the membrane, threshold·64 + kept mod 64
    wanted, last = python_lif([first, *a], v, 0, threshold, decay)
    assert wanted[0] == (kept % 64 > 0)
    spikes, membrane = run([[x] for x in (first, *a)], [v], 0, threshold, decay)
    assert spikes[:, 0].tolist() == wanted and membrane.tolist() == [last]


@pytest.mark.parametrize("decay", [0, 1, 1400, 4095, 4096])
def test_equals_int64_over_millions_of_neuron_steps(decay):
    """16 steps of 60,000 neurons for each decay, 4.8 million in all, in every regime."""
    rng = np.random.default_rng(decay)
    steps, neurons, threshold = 16, 60_000, 3000
    a = rng.integers(-4000, 5000, (steps, neurons))
    a[:, ::3] = rng.integers(-(2**17) + 1, 2**17, (steps, neurons // 3))
    v = rng.integers(-LIMIT, LIMIT + 1, neurons)
    v[:200], v[200:400] = LIMIT, -LIMIT
    a[0, 400:600], v[400:600] = threshold, 0  # exactly at the threshold
    bias = rng.integers(-4096, 4097, neurons)
    bias[400:600] = 0
    spikes, last = run(a, v, bias, threshold, decay)
    assert not spikes[0, 400:600].any()
    at_limit = 0
    for t in range(steps):
        product = v * (4096 - decay)
        h = np.sign(product) * (abs(product) // 4096) + 64 * a[t] + 64 * bias
        h = np.minimum(np.maximum(h, -LIMIT), LIMIT)
        at_limit += (abs(h) == LIMIT).sum()
        assert np.array_equal(spikes[t], h > 64 * threshold)
        v = np.where(h > 64 * threshold, 0, h)
    assert np.array_equal(last, v)
    assert at_limit > 100 and 0.05 < spikes.mean() < 0.95


def test_step_by_step_equals_the_sequence_and_any_type_of_integers():
    rng = torch.Generator().manual_seed(0)
    a = torch.randint(-500, 700, (20, 3, 4, 5), generator=rng)
    bias = torch.randint(-50, 50, (4, 1), generator=rng)
    start = torch.randint(-(2**20), 2**20, (3, 4, 5), generator=rng)
    spikes, last = integer_lif(a.float(), start, bias, 300, 900, 0.01, 2.0)
    v, one_by_one = start.double(), []
    for t in range(20):
        s, v = integer_lif(a[t : t + 1], v, bias.float(), 300, 900, 0.01, 2.0)
        one_by_one.append(s)
    assert torch.equal(torch.cat(one_by_one).float(), spikes) and torch.equal(v, last)
    assert one_by_one[0].dtype == torch.int64 and last.dtype == torch.float32
    noise = torch.rand(a.shape, generator=rng) * 0.8 - 0.4
    assert torch.equal(integer_lif(a + noise, start, bias, 300, 900, 0.01, 2.0)[0], spikes)


def straight_through_loop(a, v, bias, threshold, decay, step, k, detach_reset):
    """The stated rule by autograd in float64: h is the float sum with the integer's value, clipped values are constant,
    and a spike has the slope of (1 + tanh(k·(h − θ)))/2."""
    unit, beta, spikes = step / 64, 1 - decay / 4096, []
    for t in range(a.shape[0]):
        whole = (v.detach() / unit).round()
        h_int = (whole * (4096 - decay) / 4096).trunc() + 64 * a[t].detach() + 64 * bias.detach()
        inside = h_int.abs() < LIMIT
        h_int = h_int.clamp(-LIMIT, LIMIT)
        h = beta * v + step * (a[t] + bias)
        h = torch.where(inside, h + (h_int * unit - h).detach(), h_int * unit)
        soft = (1 + torch.tanh(k * (h - threshold * step))) / 2
        s = soft + ((h_int > 64 * threshold).double() - soft).detach()
        v = h * (1 - (s.detach() if detach_reset else s))
        spikes.append(s)
    return torch.stack(spikes), v / unit


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize(("decay", "threshold", "step", "k"), [(2048, 200, 0.005, 2.0), (300, 90, 0.02, 0.7)])
def test_gradient_is_the_stated_straight_through_rule(detach_reset, decay, threshold, step, k):
    rng = torch.Generator().manual_seed(decay)
    a = torch.randint(-threshold // 2, threshold, (9, 2, 3, 4), generator=rng).double()
    a[:2, 0, :, 0] = -(2**17) + 1  # these membranes meet the limit
    bias = torch.randint(-20, 30, (3, 1), generator=rng).double()
    start = torch.randint(-12_000, 12_000, (2, 3, 4), generator=rng).double()
    weights, on_state = torch.rand(9, 2, 3, 4, generator=rng).double(), torch.rand(2, 3, 4, generator=rng).double()

    def leaves(dtype):
        return [x.clone().to(dtype).requires_grad_() for x in (a, start, bias)]

    ours, theirs = leaves(torch.float32), leaves(torch.float64)
    spikes, last = integer_lif(*ours, threshold, decay, step, k, detach_reset)
    float_start = theirs[1] * (step / 64)
    wanted, end = straight_through_loop(theirs[0], float_start, theirs[2], threshold, decay, step, k, detach_reset)
    assert torch.equal(spikes.double(), wanted.detach())
    assert torch.equal(last.double(), end.detach().round())
    assert 0.1 < spikes.mean() < 0.5
    (weights * spikes).sum().add((on_state * last).sum() * 1e-4).backward()
    (weights * wanted).sum().add((on_state * end).sum() * 1e-4).backward()
    assert not theirs[0].grad[1, 0, :, 0].any(), "nothing passes a clipped membrane"
    for mine, oracle in zip(ours, theirs, strict=True):
        assert (oracle.grad != 0).float().mean() > 0.5
        torch.testing.assert_close(mine.grad.double(), oracle.grad, rtol=2e-4, atol=1e-7)


def test_rounding_of_weights_passes_the_gradient_and_clipping_does_not():
    weight = torch.tensor([[1.27, -0.634], [0.2, 0.31]], dtype=torch.float64).view(2, 2, 1, 1).requires_grad_()
    bias = torch.tensor([0.3, 90.0], dtype=torch.float64, requires_grad=True)
    found = integers(weight, bias, 1.0)
    w, b = straight_through(weight, bias, found)
    assert w.flatten().tolist() == [254, -126, 40, 62] and b.tolist() == [60, 4096]
    (w * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)).sum().add(b.sum()).backward()
    torch.testing.assert_close(weight.grad.flatten(), torch.tensor([200.0, 200, 400, 400]).double())
    torch.testing.assert_close(bias.grad, torch.tensor([200.0, 0.0]).double())


@pytest.mark.parametrize(
    ("weight", "bias", "theta", "decay", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2), 1.0, 1, "are 0"),
        (torch.tensor([[1.0, float("nan")]]), torch.zeros(1), 1.0, 1, "not finite"),
        (torch.ones(1, 2), torch.tensor([float("inf")]), 1.0, 1, "not finite"),
        (torch.full((1, 2), 1.9e-3), torch.zeros(1), 1.0, 1, "133684 steps"),
        (torch.ones(1, 517), torch.zeros(1), 1.0, 1, "add up to 131318"),
        (-torch.ones(1, 517), torch.zeros(1), 1.0, 1, "add up to 131318"),
        (torch.ones(1, 2), torch.zeros(1), 1.0, 4097, "decay_k=4097"),
    ],
)
def test_what_a_chip_cannot_hold_is_refused(weight, bias, theta, decay, words):
    with pytest.raises(ConfigurationError, match=words):
        integer_constants(weight[..., None, None], bias, theta, decay)


def test_the_largest_that_a_chip_can_hold():
    assert integer_constants(torch.ones(1, 516, 1, 1), torch.zeros(1), 1.0, 1).weight.sum() == 131_064
    assert integer_constants(torch.ones(1, 1, 1, 1), torch.zeros(1), 131071 / 254, 1).threshold == 131_071
