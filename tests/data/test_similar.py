"""Groups of similar images: a permutation, neighbours together, against brute force."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashnets.data.similar import batches_of, mean_similarity, nearest, random_groups, similar_groups


def unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 17), st.integers(0, 50), st.booleans())
def test_every_image_exactly_once(n, phi, seed, random):
    groups = random_groups(n, phi, seed) if random else similar_groups(unit(n, 4, seed), phi, seed)
    assert sorted(np.concatenate(groups).tolist()) == list(range(n))
    sizes = [len(g) for g in groups]
    assert all(size == phi for size in sizes[:-1])
    assert sizes[-1] == (phi + n % phi if n >= phi else n)
    batches = batches_of(groups, 4 * phi)
    assert sorted(np.concatenate([b for b, _ in batches]).tolist()) == list(range(n))
    assert all(len(b) % size == 0 for b, size in batches)


def test_clusters_come_back_whole():
    """Six tight clusters of four images: every group is one cluster, whatever the order of openers."""
    centres = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    points = np.repeat(centres, 4, axis=0) + 0.01 * np.random.default_rng(1).standard_normal((24, 6))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    for seed in range(5):
        groups = similar_groups(points, 4, seed)
        assert sorted(tuple(sorted(g // 4)) for g in groups) == [(i,) * 4 for i in range(6)]


def test_order_inside_a_group_is_descending_similarity():
    points = unit(60, 8, 3)
    for group in similar_groups(points, 6, 0):
        to_first = [float(points[i].astype(np.float64) @ points[group[0]].astype(np.float64)) for i in group]
        assert to_first == sorted(to_first, reverse=True)


def test_similar_beats_random_and_the_seed_decides():
    points = unit(400, 6, 5)
    groups = similar_groups(points, 8, 0)
    assert mean_similarity(points, groups) > mean_similarity(points, random_groups(400, 8, 0)) + 0.3
    again, other = similar_groups(points, 8, 0), similar_groups(points, 8, 1)
    assert all((a == b).all() for a, b in zip(groups, again, strict=True))
    assert any((a != b).any() for a, b in zip(groups, other, strict=True))


def test_mean_similarity_equals_a_loop():
    points = unit(7, 3, 9)
    groups = [np.array([0, 3, 5]), np.array([1, 2, 4, 6])]
    values = [float(points[i] @ points[j]) for g in groups for i in g for j in g if i != j]
    assert mean_similarity(points, groups) == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_without_faiss_torch_finds_the_same(monkeypatch):
    points = unit(80, 5, 2)
    with_faiss = nearest(points, points, 6)
    monkeypatch.setitem(sys.modules, "faiss", None)
    np.testing.assert_array_equal(nearest(points, points, 6), with_faiss)
