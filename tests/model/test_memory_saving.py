"""The memory-saving path against plain BPTT: outputs, states, statistics and all gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import random_spikes, small_config, wake

from ashnets.model import memory_saving
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.model.packed_spikes import PackedSpikes


def twins(training: bool = True, **changes) -> tuple[AbstractEncoder, AbstractEncoder]:
    torch.manual_seed(0)
    plain = AbstractEncoder(small_config(**changes))
    wake(plain)
    plain.train(training)
    saving = copy.deepcopy(plain)
    saving.memory_saving = True
    return plain, saving


def run(encoder, spikes, state, group_size, readout):
    state = None if state is None else tuple(v.clone().requires_grad_() for v in state)
    out = encoder(spikes, group_size, readout, state)
    generator = torch.Generator().manual_seed(5)
    loss = (out.response * torch.randn(out.response.shape, generator=generator)).sum()
    for v in out.state:
        loss = loss + (v * torch.randn(v.shape, generator=generator)).sum()
    loss.backward()
    grads = {name: p.grad for name, p in encoder.named_parameters()}
    return out, grads, [] if state is None else [v.grad for v in state]


def assert_equal(plain, saving):
    (a, grads_a, states_a), (b, grads_b, states_b) = plain, saving
    assert torch.equal(a.response, b.response)
    assert a.layer_spikes.keys() == b.layer_spikes.keys()
    for name in a.layer_spikes:
        assert torch.equal(a.layer_spikes[name], b.layer_spikes[name])
        assert a.layer_spikes[name].sum() > 0
    assert a.layer_neurons == b.layer_neurons
    for x, y in zip(a.state, b.state, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
    for name, grad in grads_a.items():
        torch.testing.assert_close(grads_b[name], grad, rtol=2e-4, atol=2e-5 * float(grad.abs().max()), msg=name)
    for x, y in zip(states_a, states_b, strict=True):
        torch.testing.assert_close(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("carry", ["group", "image"])
@pytest.mark.parametrize("readout", ["shared", "per_image"])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_equals_plain_bptt(training, carry, readout, detach_reset):
    plain, saving = twins(training, carry=carry, detach_reset=detach_reset, time_steps=5)
    spikes = random_spikes(5, 8, 3, 16, 16)
    state = None
    if carry == "group":
        with torch.no_grad():
            _, state = plain.run(random_spikes(2, 2, 3, 16, 16, seed=9))
            saving.load_state_dict(plain.state_dict())
    assert_equal(run(plain, spikes, state, 4, readout), run(saving, spikes, state, 4, readout))
    for (name, a), (_, b) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


@given(
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 30),
    st.sampled_from([0, 500, 10**9]),
    st.integers(0, 100),
)
@settings(deadline=None, max_examples=25)
def test_pieces_and_budget_change_nothing(steps, group_size, groups, pieces, budget, seed):
    plain, saving = twins(time_steps=steps)
    spikes = random_spikes(steps, group_size * groups, 3, 16, 16, seed=seed)
    before, plan = memory_saving.PIECES, memory_saving._Plan
    memory_saving.PIECES = pieces
    memory_saving._Plan = lambda **settings: plan(**{**settings, "budget": budget})
    try:
        found = run(saving, spikes, None, group_size, None)
    finally:
        memory_saving.PIECES, memory_saving._Plan = before, plan
    expected = run(plain, spikes, None, group_size, None)
    assert torch.equal(found[0].response, expected[0].response)
    for name, grad in expected[1].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-3, atol=1e-4 * float(grad.abs().max()), msg=name)


def test_autocast_convolves_in_bfloat16_on_both_paths():
    plain, saving = twins()
    spikes = random_spikes(3, 4, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a, b = plain(spikes, 2), saving(spikes, 2)
    assert torch.equal(a.response, b.response)
    a.response.square().sum().backward()
    b.response.square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0.05, atol=0.02 * float(p.grad.abs().max()), msg=name)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_packing_gives_every_spike_back(steps, batch, channels, side, seed):
    packed = PackedSpikes(torch.Size((batch, channels, side, side)))
    pieces = [random_spikes(n, batch, channels, side, side, seed=seed + n) for n in (steps, 1)]
    for piece in pieces:
        packed.append(piece)
    for i, piece in enumerate(pieces):
        assert torch.equal(packed.frames(i, torch.float32), piece.flatten(0, 1))
    assert [bits.numel() for bits in packed.give_bits()] == [-(-piece.numel() // 8) for piece in pieces]


def test_nothing_is_saved_without_gradients():
    plain, saving = twins()
    with torch.no_grad():
        spikes = random_spikes(3, 4, 3, 16, 16)
        assert torch.equal(plain(spikes, 2).response, saving(spikes, 2).response)
