"""Steps and shares of an epoch: the rules for all small cases, and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ashnets.data.batches import plan_epoch
from ashnets.data.similar import random_groups
from ashnets.errors import ConfigurationError, DataError


def consecutive(n: int, phi: int) -> list[np.ndarray]:
    """Groups of φ with the remainder in the last one, in the order of the images: 0, 1, …, n - 1."""
    starts = list(range(0, max(n // phi, 1) * phi, phi)) if n >= phi else [0]
    return [np.arange(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def sizes(n: int, phi: int, pairs: int, ranks: int) -> list[list[tuple[int, int]]]:
    """(images, size of their groups) of each share of each step."""
    return [[(len(s.indices), s.group_size) for s in step] for step in plan_epoch(consecutive(n, phi), pairs, ranks)]


@settings(max_examples=600, deadline=None)
@given(st.integers(1, 300), st.integers(1, 17), st.integers(1, 8), st.integers(1, 3))
@example(5, 1, 1, 4)
@example(3, 2, 3, 1)
@example(17, 16, 8, 1)
def test_every_rule(n, phi, ranks, groups_a_rank):
    groups, pairs = random_groups(n, phi, seed=n), phi * ranks * groups_a_rank
    order = np.concatenate(groups)
    if n < ranks:
        with pytest.raises(DataError, match=f"^{n} images for {ranks} ranks: give at least one image per rank"):
            plan_epoch(groups, pairs, ranks)
        return
    plan = plan_epoch(groups, pairs, ranks)
    assert all(len(step) == ranks for step in plan)
    shares = [share for step in plan for share in step]
    # every image exactly once, in the order of the groups whatever the number of ranks
    np.testing.assert_array_equal(np.concatenate([s.indices for s in shares]), order)
    assert all(len(s.indices) > 0 and len(s.indices) % s.group_size == 0 for s in shares)
    if any(len(s.indices) == 1 for s in shares):
        assert n < 2 * ranks or pairs == ranks
    for step in plan[: max(0, n // pairs - 2)]:  # nothing is left over for these
        assert [(len(s.indices), s.group_size) for s in step] == [(groups_a_rank * phi, phi)] * ranks
    # only the last step may cut a group, and then each rank holds one subgroup of nearly equal size
    place = 0
    for number, step in enumerate(plan):
        whole = all(s.group_size == phi and len(s.indices) % phi == 0 for s in step) and place % phi == 0
        counts = [len(s.indices) for s in step]
        if whole:
            assert max(counts) - min(counts) <= phi
        else:
            assert number == len(plan) - 1
            assert [s.group_size for s in step] == counts and max(counts) - min(counts) <= 1
            taken, last = sum(counts), len(groups[-1])
            assert (n - taken) % phi == 0  # the regular groups in it are whole
            if len(plan) > 1 and taken > last:
                assert taken - phi < 2 * ranks  # and no more of them than it needs
        place += sum(counts)


def test_ranks_see_the_images_of_one_rank():
    groups = random_groups(1000, 16, 0)
    alone = plan_epoch(groups, 128, 1)
    for ranks in (2, 4, 8):
        together = plan_epoch(groups, 128, ranks)
        for one, several in list(zip(alone, together, strict=False))[: 1000 // 128 - 1]:
            np.testing.assert_array_equal(one[0].indices, np.concatenate([s.indices for s in several]))


@pytest.mark.parametrize(
    ("n", "phi", "pairs", "ranks", "expected"),
    [
        (8, 2, 4, 2, [[(2, 2)] * 2, [(2, 2)] * 2]),  # full steps only
        (14, 2, 8, 2, [[(4, 2)] * 2, [(4, 2), (2, 2)]]),  # three groups over: a step of their own
        (10, 2, 8, 2, [[(6, 2), (4, 2)]]),  # one group over: it joins
        (2, 2, 8, 2, [[(1, 1)] * 2]),  # no full step to join
        (6, 2, 8, 4, [[(2, 2), (2, 2), (1, 1), (1, 1)]]),  # the same, cut where each rank gets one at least
        (22, 4, 8, 2, [[(4, 4)] * 2, [(4, 4)] * 2, [(3, 3)] * 2]),  # a longer last group, cut into one a rank
        (19, 4, 8, 2, [[(8, 4), (4, 4)], [(4, 4), (3, 3)]]),
        (11, 4, 8, 2, [[(6, 6), (5, 5)]]),  # the same, with the one group that no step can hold
        (21, 2, 8, 4, [[(4, 2)] * 2 + [(2, 2)] * 2, [(3, 3)] + [(2, 2)] * 3]),  # it takes three groups in: 9 images
        (9, 4, 4, 1, [[(4, 4)], [(5, 5)]]),  # one rank
        (5, 1, 4, 1, [[(5, 1)]]),  # φ = 1: one image alone makes no step
        (1, 16, 16, 1, [[(1, 1)]]),
    ],
)
def test_tails_by_hand(n, phi, pairs, ranks, expected):
    assert sizes(n, phi, pairs, ranks) == expected


def test_what_cannot_be_dealt_out_is_refused():
    with pytest.raises(DataError, match=r"3 images for 4 ranks: .*start fewer ranks"):
        plan_epoch(consecutive(3, 2), 8, 4)
    with pytest.raises(DataError, match="0 images"):
        plan_epoch([], 8, 1)
    with pytest.raises(
        ConfigurationError, match=r"batch_size=100 over 2 ranks in groups of 16: .* 16 × 2 = 32; .*=128"
    ):
        plan_epoch(consecutive(500, 16), 100, 2)
    with pytest.raises(ConfigurationError, match=r"batch_size=0 .*batch_size=16"):
        plan_epoch(consecutive(500, 16), 0, 1)
