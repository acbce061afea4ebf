"""Memory of large results: used again when nothing refers to it, never before."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ashnets.kernels import buffers
from ashnets.model.neuron import lif

LARGE = (64, 1 << 14)  # 4 MiB in float32


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    gc.collect()
    monkeypatch.setattr(buffers, "_free", [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_freed_memory_serves_the_next_result(dtype):
    x = torch.empty(LARGE, dtype=dtype)
    first = buffers.empty_like(x)
    place = first.data_ptr()
    assert (first.shape, first.dtype, first.is_contiguous(), place % 64) == (x.shape, dtype, True, 0)
    del first
    assert buffers.kept() >= x.nbytes
    for served in (x, x[:60], x):  # the second is a little smaller
        assert buffers.empty_like(served).data_ptr() == place
    assert buffers.empty_like(x[:30]).data_ptr() != place  # half as large
    assert buffers.kept() > 0


def test_what_something_refers_to_is_not_used_again():
    x = torch.zeros(LARGE)
    first = buffers.empty_like(x).fill_(1.0)
    part, numbers = first[3:5, 7:], first.numpy()[:2]
    del first
    second = buffers.empty_like(x).fill_(2.0)
    assert part.eq(1).all() and (numbers == 1).all()
    del part
    third = buffers.empty_like(x).fill_(3.0)
    assert (numbers == 1).all() and second.eq(2).all()
    del numbers
    assert buffers.empty_like(x).data_ptr() not in (second.data_ptr(), third.data_ptr())


def test_small_results_are_the_allocator_s():
    buffers.empty_like(torch.empty(16, 16))
    assert buffers.kept() == 0


def test_work_that_must_take_little_memory_keeps_none():
    with buffers.unkept():
        buffers.empty_like(torch.empty(LARGE))
    assert buffers.kept() == 0
    buffers.empty_like(torch.empty(LARGE))
    assert buffers.kept() > 0


def test_free_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(buffers, "most_kept", lambda: 10 << 20)
    held = [buffers.empty_like(torch.empty(LARGE)) for _ in range(5)]
    held.clear()
    assert 8 << 20 <= buffers.kept() <= 10 << 20


def test_threads_do_not_share_a_result():
    x = torch.empty(LARGE)

    def work(number: int) -> bool:
        for _ in range(20):
            own = buffers.empty_like(x).fill_(number)
            if not own.eq(number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_gradients_of_several_sequences_at_once():
    """Spikes and gradients that autograd still needs stay as they are: the sum of two equals each of them alone."""
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(LARGE, generator=draw).requires_grad_() for _ in range(2)]
    v = torch.zeros(LARGE[1])
    weights = [torch.randn(LARGE, generator=draw) for _ in inputs]
    alone = []
    for x, weight in zip(inputs, weights, strict=True):
        spikes, _ = lif(x, v, 0.5, 1.0, 2.0)
        alone.append((spikes.detach().clone(), torch.autograd.grad((spikes * weight).sum(), x)[0].clone()))
    both = [lif(x, v, 0.5, 1.0, 2.0)[0] for x in inputs]
    sum((spikes * weight).sum() for spikes, weight in zip(both, weights, strict=True)).backward()
    for x, spikes, (expected, gradient) in zip(inputs, both, alone, strict=True):
        assert torch.equal(spikes, expected) and torch.equal(x.grad, gradient)
