"""Groups of similar images: a permutation with neighbors together, against brute force."""

from __future__ import annotations

import sys
from unittest.mock import Mock

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ashnets.data import similar
from ashnets.data.similar import mean_similarity, nearest, random_groups, similar_groups
from ashnets.errors import InputError


def unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clustered(n: int, seed: int) -> np.ndarray:
    """200 clusters that overlap in 8 of 32 dimensions."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((200, 8))[rng.integers(200, size=n)] + 0.5 * rng.standard_normal((n, 8))
    x = latent @ rng.standard_normal((8, 32)) + 0.5 * rng.standard_normal((n, 32))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 90) | st.integers(91, 600),
    st.integers(1, 17),
    st.integers(0, 50),
    st.sampled_from(["random", "exact", "approximate"]),
)
def test_every_image_exactly_once(n, phi, seed, how):
    if how == "random":
        groups = random_groups(n, phi, seed)
    else:
        found = similar_groups(unit(n, 4, seed), phi, seed, exact_up_to=1 if how == "approximate" else n)
        assert found.index.startswith("IVF" if how == "approximate" and n > 8 * phi else "exact")
        groups = found.groups
    assert sorted(np.concatenate(groups).tolist()) == list(range(n))
    sizes = [len(g) for g in groups]
    assert all(size == phi for size in sizes[:-1])
    assert sizes[-1] == (phi + n % phi if n >= phi else n)


def test_exact_search_is_the_greedy_loop():
    """Openers in random order, each with its nearest free images, in float64."""
    points = unit(50, 6, 4).astype(np.float64)
    openers, free, expected = np.random.default_rng(7).permutation(50), set(range(50)), []
    for opener in openers:
        if opener in free:
            others = sorted(free - {opener}, key=lambda i: -points[i] @ points[opener])
            group = [int(opener), *(others if len(free) < 10 else others[:4])]  # the last one takes what is left
            expected.append(tuple(group))
            free -= set(group)
    found = similar_groups(points, 5, 7).groups
    assert sorted(tuple(g.tolist()) for g in found) == sorted(expected)


def test_clusters_come_back_whole():
    """Six tight clusters of four images: every group is one cluster, for any order of the first images."""
    centers = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    points = np.repeat(centers, 4, axis=0) + 0.01 * np.random.default_rng(1).standard_normal((24, 6))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    for seed in range(5):
        groups = similar_groups(points, 4, seed).groups
        assert sorted(tuple(sorted(g // 4)) for g in groups) == [(i,) * 4 for i in range(6)]


@pytest.mark.parametrize("n", [5, 63, 4003])
@pytest.mark.parametrize("exact_up_to", [1000, 10_000])
def test_order_inside_a_group_is_descending_similarity(n, exact_up_to):
    points = unit(n, 8, 3)
    for group in similar_groups(points, 6, 0, exact_up_to=exact_up_to).groups:
        to_first = points[group].astype(np.float64) @ points[group[0]].astype(np.float64)
        assert (np.diff(to_first) < 1e-6).all()


def test_similar_beats_random_and_the_seed_decides():
    points = unit(400, 6, 5)
    groups = similar_groups(points, 8, 0).groups
    assert mean_similarity(points, groups) > mean_similarity(points, random_groups(400, 8, 0)) + 0.3
    again, other = similar_groups(points, 8, 0).groups, similar_groups(points, 8, 1).groups
    assert all((a == b).all() for a, b in zip(groups, again, strict=True))
    assert any((a != b).any() for a, b in zip(groups, other, strict=True))


def test_cells_reach_exact_search():
    points = clustered(20_000, 0)
    exact, cells = similar_groups(points, 16, 0, exact_up_to=20_000), similar_groups(points, 16, 0, exact_up_to=3000)
    assert exact.index == "exact search over 20,000"
    assert cells.index.startswith("IVF over 20,000, 7 cells, 1 probed, 3 rounds, then exact search over 2,")
    reached, chance = mean_similarity(points, exact.groups), mean_similarity(points, random_groups(20_000, 16, 0))
    assert mean_similarity(points, cells.groups) > 0.95 * reached > 0.5 > 0.1 > chance


@pytest.mark.parametrize("exact_up_to", [2000, 10_000])
def test_threads_change_nothing(exact_up_to):
    points, before, found = clustered(6000, 1), faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            found.append(np.concatenate(similar_groups(points, 16, 0, exact_up_to=exact_up_to).groups))
    finally:
        faiss.omp_set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_equal_images_need_few_searches(monkeypatch):
    """All openers find the same few images, and k-means fills only one cell: about two searches for each group."""
    points, searched = np.repeat(unit(2, 16, 0), [5990, 10], axis=0), []

    def counted(queries: np.ndarray, *given: object) -> tuple[np.ndarray, np.ndarray]:
        searched.append(len(queries))
        return nearest(queries, *given)

    monkeypatch.setattr(similar, "nearest", counted)
    groups = similar_groups(points, 16, 0, exact_up_to=1000).groups
    assert len(groups) <= sum(searched) < 4 * len(groups)
    assert sorted(np.concatenate(groups).tolist()) == list(range(6000))


def test_damaged_embeddings_are_refused():
    points = unit(30, 4, 0)
    points[[7, 9], 2] = np.nan, np.inf
    with pytest.raises(InputError, match="2 of 30 embeddings contain NaN or infinity, the first at row 7"):
        similar_groups(points, 4, 0)


def test_mean_similarity_equals_a_loop():
    points = unit(7, 3, 9)
    groups = [np.array([0, 3, 5]), np.array([1, 2, 4, 6])]
    values = [float(points[i] @ points[j]) for g in groups for i in g for j in g if i != j]
    assert mean_similarity(points, groups) == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize("with_faiss", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_equal_products_stand_in_the_order_of_their_rows(monkeypatch, with_faiss, threads):
    """The best k are the first of the best k + n on every machine; most rows occur many times, some once."""
    before = torch.get_num_threads()
    if not with_faiss:
        monkeypatch.setattr("ashnets.data.similar.has_faiss", lambda: False)
    kinds, queries = unit(60, 256, 0), unit(30, 256, 1)
    kind = np.concatenate([np.random.default_rng(2).integers(10, size=500), np.arange(60)])
    cosines = (queries.astype(np.float64) @ kinds.T.astype(np.float64))[:, kind]  # equal rows share one product
    torch.set_num_threads(threads)
    try:
        for k in (1, 3, 40, 130, 560):
            scores, rows = nearest(queries, kinds[kind], k)
            for query in range(30):
                order = sorted(range(560), key=lambda i: (-cosines[query, i], i))
                assert rows[query].tolist() == order[:k]
                np.testing.assert_allclose(scores[query], cosines[query, order[:k]], atol=1e-6)
            for i in (0, 7, 29):
                assert np.array_equal(nearest(queries[i : i + 1], kinds[kind], k)[0], scores[i : i + 1])
    finally:
        torch.set_num_threads(before)


def test_without_faiss_torch_finds_the_same_in_blocks(monkeypatch):
    points = unit(300, 5, 2)
    with_faiss, groups = nearest(points, points, 6)[1], similar_groups(points, 7, 0).groups
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("ashnets.data.similar.BLOCK", 2000)
    np.testing.assert_array_equal(nearest(points, points, 6)[1], with_faiss)
    found = similar_groups(points, 7, 0, exact_up_to=100)
    assert found.index == "exact search over 300 in torch: faiss is not installed"
    assert all((a == b).all() for a, b in zip(found.groups, groups, strict=True))


@pytest.mark.parametrize("state", ["a GPU", "a full GPU", "too many neighbors", "a CPU build"])
def test_a_gpu_finds_the_same(monkeypatch, state):
    """The GPU is played by the index on the CPU."""
    points, moved = clustered(600, 2), []
    expected = similar_groups(points, 6, 0).groups
    free = 0 if state == "a full GPU" else 1 << 34

    def to_gpu(resources: object, device: int, index: object) -> object:
        moved.append(device)
        if state == "too many neighbors":
            raise RuntimeError("k exceeds the maximum")
        return index

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 1 << 35))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    if state != "a CPU build":
        monkeypatch.setattr(faiss, "StandardGpuResources", Mock, raising=False)
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 4)
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    similar._gpu.cache_clear()
    try:
        found = similar_groups(points, 6, 0).groups
    finally:
        similar._gpu.cache_clear()
    assert all(map(np.array_equal, found, expected))
    assert set(moved) == ({3} if state in ("a GPU", "too many neighbors") else set())
