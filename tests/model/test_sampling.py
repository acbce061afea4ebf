"""Decision 3: what the probabilistic sampler draws, what the draw depends on, and how random it is."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader, Dataset

from ashnets.errors import InputError
from ashnets.model.sampling import content_key, image_key, probabilistic_sampling

M32, M64 = 2**32 - 1, 2**64 - 1


def splitmix(state: int) -> int:
    """The finalizer of Steele, Lea and Flood, in Python integers."""
    z = (state + 0x9E3779B97F4A7C15) & M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    return z ^ (z >> 31)


def uniform24(seed: int, image_id: int, step: int, position: int) -> int:
    """The sampler's 24 bits for one pixel, computed independently."""
    key = 0
    for word in (seed, image_id, step):
        key = splitmix(key ^ (word & M64))
    x = ((position * 0x9E3779B9) & M32) ^ (key & M32)
    x ^= x >> 16
    x = (x * 0x7FEB352D) & M32
    x = (x + (key >> 32)) & M32
    x ^= x >> 15
    x = (x * 0x846CA68B) & M32
    x ^= x >> 16
    return x >> 8


@given(st.integers(-(2**31), 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 10_000), st.integers(0, 2**32 - 1))
def test_hash_is_that_of_the_loop(seed, image_id, first_step, noise):
    pixels = torch.rand(1, 3, 2, 3, generator=torch.Generator().manual_seed(noise))
    flat = pixels.flatten().tolist()
    for kind in (torch.float32, torch.float64):  # the second is not drawn by a kernel but by torch, as on a GPU
        spikes = probabilistic_sampling(pixels.to(kind), [image_id], 2, seed, first_step)
        for t in range(2):
            expected = [uniform24(seed, image_id, first_step + t, p) < round(i * 2**24) for p, i in enumerate(flat)]
            assert spikes[t].flatten().bool().tolist() == expected


def test_comparison_is_strict_to_the_last_bit():
    """u < I: a pixel whose intensity equals its draw stays silent; with 2⁻²⁴ more it fires."""
    u = [uniform24(1, 2, 3, position) for position in range(12)]
    assert max(u) < 2**24 - 1
    for extra in (0, 1):
        pixels = torch.tensor([(value + extra) / 2**24 for value in u]).view(1, 3, 2, 2)
        assert probabilistic_sampling(pixels, [2], 1, seed=1, first_step=3).sum() == 12 * extra


def test_shape_type_and_values():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        spikes = probabilistic_sampling(torch.rand(2, 3, 4, 5).to(dtype), [1, 2], 6)
        assert spikes.shape == (6, 2, 3, 4, 5)
        assert spikes.dtype == dtype
        assert set(spikes.unique().tolist()) == {0.0, 1.0}


def test_zero_never_fires_and_one_always_does():
    pixels = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)
    spikes = probabilistic_sampling(pixels, [9], 100)
    assert spikes[:, :, 0].sum() == 0
    assert spikes[:, :, 1].all()


@pytest.mark.parametrize("intensity", [0.001, 0.1, 0.5, 0.77, 0.999])
def test_rate_is_the_intensity(intensity):
    draws = [probabilistic_sampling(torch.full((1, 3, 32, 32), intensity), [i], 20, seed=5) for i in range(8)]
    spikes = torch.cat(draws)
    assert stats.binomtest(int(spikes.sum()), spikes.numel(), intensity).pvalue > 1e-3


def test_rates_of_each_pixel_are_binomial():
    """Pixels of every intensity over 512 steps: the sum of their squared z-scores follows chi-square."""
    pixels = torch.linspace(0.05, 0.95, 3 * 32 * 32).view(1, 3, 32, 32)
    spikes = probabilistic_sampling(pixels, [3], 512)
    counts, p = spikes.sum(0).double().flatten(), pixels.double().flatten()
    z2 = ((counts - 512 * p) ** 2 / (512 * p * (1 - p))).sum().item()
    # z² has variance 2 + (1 − 6pq)/(npq), next to 2 here
    assert 1e-3 < stats.chi2.cdf(z2, counts.numel()) < 1 - 1e-3


def test_uniform_in_every_bit():
    """The hash itself over 16 bins and bit by bit, by images whose intensity is the edge of a bin."""
    n, previous, observed = 3 * 64 * 64 * 10, 0, []
    for edge in range(1, 17):
        total = int(probabilistic_sampling(torch.full((1, 3, 64, 64), edge / 16), [77], 10).sum())
        observed.append(total - previous)
        previous = total
    assert sum(observed) == n
    assert 1e-3 < stats.chisquare(observed).pvalue < 1 - 1e-3


def fair_coins(ids: list[int], steps: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """±1 for (T, B, 3, side, side) at intensity ½."""
    return probabilistic_sampling(torch.full((len(ids), 3, side, side), 0.5), ids, steps, seed) * 2 - 1


def z_score(a: torch.Tensor, b: torch.Tensor) -> float:
    """Standard normal for independent fair coins."""
    return (a * b).sum().item() / math.sqrt(a.numel())


def test_steps_images_seeds_and_pixels_are_independent():
    coins = fair_coins(list(range(16)), 16)
    scores = {
        "steps": z_score(coins[:-1], coins[1:]),
        "distant steps": z_score(coins[:-8], coins[8:]),
        "ids": z_score(coins[:, :-1], coins[:, 1:]),
        "seeds": z_score(coins, fair_coins(list(range(16)), 16, seed=1)),
        "columns": z_score(coins[..., :-1], coins[..., 1:]),
        "rows": z_score(coins[..., :-1, :], coins[..., 1:, :]),
        "diagonals": z_score(coins[..., :-1, :-1], coins[..., 1:, 1:]),
        "channels": z_score(coins[:, :, :-1], coins[:, :, 1:]),
        # (id, step) and (id + 1, step − 1) have the same sum: a weak key would join them
        "id against step": z_score(coins[:-1, 1:], coins[1:, :-1]),
    }
    assert {name: z for name, z in scores.items() if abs(z) > 3.5} == {}


def test_no_two_pairs_of_steps_and_images_are_alike():
    """Correlation of every pair among 16 × 16 draws of 3,072 pixels: the largest is as large as by chance."""
    rows = fair_coins(list(range(16)), 16).flatten(0, 1).flatten(1)
    correlation = rows @ rows.T / math.sqrt(rows.shape[1])
    pairs = correlation[torch.triu_indices(256, 256, 1).unbind()]
    assert pairs.abs().max() < 5.2  # 32,640 normal scores: P(max > 5.2) = 0.7 %
    assert 0.97 < pairs.std() < 1.03


def test_ids_that_differ_in_one_bit_draw_apart():
    ids = [0] + [1 << bit for bit in range(63)]
    coins = fair_coins(ids, 4)
    scores = [z_score(coins[:, 0], coins[:, i]) for i in range(1, len(ids))]
    assert max(map(abs, scores)) < 4
    assert len({coins[:, i].numpy().tobytes() for i in range(len(ids))}) == len(ids)


@given(st.permutations(range(5)), st.integers(1, 5))
def test_order_and_batch_do_not_change_a_draw(order, batch):
    pixels = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    ids = [11, 12, 2**40, 0, 7]
    whole = probabilistic_sampling(pixels, ids, 3, seed=4)
    for start in range(0, 5, batch):
        some = list(order[start : start + batch])
        part = probabilistic_sampling(pixels[some], torch.tensor([ids[i] for i in some]), 3, seed=4)
        assert torch.equal(part, whole[:, some])


def test_a_stream_continues_where_it_stopped():
    pixels = torch.rand(2, 3, 5, 5)
    whole = probabilistic_sampling(pixels, [1, 2], 10, seed=3)
    parts = [probabilistic_sampling(pixels, [1, 2], n, 3, first) for first, n in ((0, 1), (1, 4), (5, 5))]
    assert torch.equal(torch.cat(parts), whole)


def test_a_brighter_image_keeps_its_spikes():
    """u does not depend on the intensity: raising it adds spikes and removes none."""
    dark = torch.rand(1, 3, 8, 8) * 0.5
    low, high = (probabilistic_sampling(p, [1], 20) for p in (dark, dark * 2))
    assert (high >= low).all()
    assert high.sum() > low.sum()


class Images(Dataset):
    """Images that are sampled in the worker that loads them."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor]:
        pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(i))
        return i, probabilistic_sampling(pixels, [1000 + i], 4, seed=9)[:, 0]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_worker_count_does_not_change_a_draw(workers):
    torch.manual_seed(workers)  # the workers' own generators differ
    order = torch.randperm(12).tolist()
    seen = {}
    for ids, spikes in DataLoader(Images(), batch_size=5, sampler=order, num_workers=workers):
        seen.update(zip(ids.tolist(), spikes, strict=True))
    pixels = torch.cat([torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(12)])
    whole = probabilistic_sampling(pixels, range(1000, 1012), 4, seed=9)
    assert sorted(seen) == list(range(12))
    for i in range(12):
        assert torch.equal(seen[i], whole[:, i])


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = probabilistic_sampling(torch.full((1, 3, 4, 4), 0.5), [1], 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(probabilistic_sampling(torch.full((1, 3, 4, 4), 0.5), [1], 5), first)


@pytest.mark.parametrize("bad", [-1e-6, 1 + 1e-6, 255.0, math.nan, math.inf])
def test_intensities_outside_the_unit_range_are_refused(bad):
    pixels = torch.rand(2, 3, 4, 4)
    pixels[1, 2, 3, 3] = bad
    with pytest.raises(InputError, match=r"give intensities in \[0, 1\]"):
        probabilistic_sampling(pixels, [1, 2], 2)


def test_a_wrong_number_of_ids_is_refused():
    with pytest.raises(InputError, match="1 image keys for 2 images"):
        probabilistic_sampling(torch.rand(2, 3, 4, 4), [1], 2)


def test_an_empty_batch_draws_nothing():
    assert probabilistic_sampling(torch.rand(0, 3, 4, 4), [], 2).shape == (2, 0, 3, 4, 4)


def test_names_become_keys():
    assert image_key(17) == 17
    assert 0 <= image_key(-1) < 2**63
    digest = hashlib.blake2b("grüße.png".encode(), digest_size=8).digest()
    assert image_key("grüße.png") == int.from_bytes(digest, "little") >> 1
    assert len({image_key(f"{n}.png") for n in range(1000)}) == 1000


def test_the_key_of_a_content_does_not_depend_on_its_storage():
    pixels = torch.rand(3, 6, 6)
    key = content_key(pixels)
    assert key == content_key(pixels.clone().requires_grad_())
    assert key == content_key(pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1))  # channels last
    assert key == int.from_bytes(hashlib.blake2b(pixels.numpy().tobytes(), digest_size=8).digest(), "little") >> 1
    other = pixels.clone()
    other[0, 0, 0] = torch.nextafter(other[0, 0, 0], torch.tensor(2.0))
    assert key != content_key(other)
    assert 0 <= key < 2**63
