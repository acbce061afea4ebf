"""Recall at K: a case by hand, sorting as the oracle, ties, chance by simulation, re-ranking."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ashnets.errors import InputError
from ashnets.metrics.retrieval import chance_at, ranks, recall_at, recall_both_ways, recall_in_folds, rerank
from ashnets.ties import TIE


def test_by_hand() -> None:
    similarity = torch.tensor(
        [
            [0.9, 0.1, 0.2, 0.3],  # gold 0: rank 1
            [0.9, 0.1, 0.2, 0.3],  # gold 1: rank 4
            [0.5, 0.4, 0.3, 0.2],  # gold 1 or 3: rank 2, by item 1
        ]
    )
    gold = [{0}, {1}, {1, 3}]
    assert ranks(similarity, gold).tolist() == [1, 4, 2]
    assert recall_at(similarity, gold, (1, 2, 3, 4, 10)) == {
        "R@1": pytest.approx(1 / 3),
        "R@2": pytest.approx(2 / 3),
        "R@3": pytest.approx(2 / 3),
        "R@4": 1,
        "R@10": 1,
    }
    assert recall_at(similarity, torch.tensor([0, 1, 1]), (1,)) == {"R@1": pytest.approx(1 / 3)}


def test_ranks_are_those_of_sorting() -> None:
    draw = random.Random(0)
    similarity = torch.randn(20, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gold = [set(draw.sample(range(30), draw.randint(1, 4))) for _ in range(20)]
    for row, indices, rank in zip(similarity.tolist(), gold, ranks(similarity, gold).tolist(), strict=True):
        best = max(indices, key=lambda i: row[i])
        wrong_and_best = [i for i in range(30) if i not in indices or i == best]
        assert sorted(wrong_and_best, key=lambda i: -row[i]).index(best) + 1 == rank


def test_a_constant_score_earns_nothing() -> None:
    assert recall_at(torch.zeros(4, 20), torch.arange(4)) == {"R@1": 0, "R@5": 0, "R@10": 0}
    # Several right items do not stand in each other's way.
    assert ranks(torch.tensor([[1.0, 1.0, 0.0]]), [{0, 1}]).tolist() == [1]
    # An item that a filter has set to minus infinity ranks behind all others.
    assert ranks(torch.tensor([[-torch.inf, 0.0, -torch.inf]]), [{0}]).tolist() == [3]


def test_chance_is_that_of_random_orders() -> None:
    gold = [{0}, {1, 2, 3}]
    draw = torch.Generator().manual_seed(0)
    hits = torch.zeros(2)
    for _ in range(4000):
        got = recall_at(torch.rand(2, 8, generator=draw), gold, (1, 5))
        hits += torch.tensor([got["R@1"], got["R@5"]])
    exact = chance_at(gold, 8, (1, 5))
    assert exact["R@1"] == pytest.approx((1 / 8 + 3 / 8) / 2)
    assert (hits / 4000).tolist() == pytest.approx([exact["R@1"], exact["R@5"]], abs=0.02)
    assert chance_at(torch.arange(3), 4, (10,)) == {"R@10": 1}


def test_rerank_moves_only_the_best() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.1, -5.0, 0.3], [0.0, 0.1, 0.2, 0.3, 0.4]])
    asked = []

    def score(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        asked.extend(zip(queries.tolist(), items.tolist(), strict=True))
        return -similarity[queries, items]  # turns their order round

    again = rerank(similarity, similarity.topk(2).indices, score)
    assert again.argsort(1, descending=True).tolist() == [[1, 0, 4, 2, 3], [3, 4, 2, 1, 0]]
    assert sorted(asked) == [(0, 0), (0, 1), (1, 3), (1, 4)]
    turned = rerank(similarity, similarity.topk(5).indices, score)
    assert turned.argsort(1).tolist() == similarity.argsort(1, descending=True).tolist()


@pytest.mark.parametrize(
    ("similarity", "gold", "message"),
    [
        (torch.zeros(0, 3), [], r"\(0, 3\)"),
        (torch.zeros(2, 3), [{0}], "gold for 1 queries, similarities for 2"),
        (torch.zeros(1, 3), [{3}], r"0\.\.2"),
        (torch.zeros(1, 3), [set()], "query 0"),
        (torch.tensor([[0.0, float("nan")]]), [{0}], "NaN"),
    ],
)
def test_what_cannot_be_ranked_is_refused(similarity: torch.Tensor, gold: list[set[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recall_at(similarity, gold)


def brute_force(scores: np.ndarray, owners: np.ndarray) -> dict[str, dict[str, float]]:
    """For each query in both directions: the number of items that score at least as high as the correct one."""

    def as_high(scores: np.ndarray, own: np.float32) -> int:
        return np.count_nonzero(scores >= own - np.float32(TIE) * abs(own))

    text_ranks = []
    for start in range(0, len(owners), 1000):
        for column, owner in zip(scores[:, start : start + 1000].T.copy(), owners[start : start + 1000], strict=True):
            text_ranks.append(as_high(column, column[owner]))
    image_ranks = [1 + as_high(row[owners != i], row[owners == i].max()) for i, row in enumerate(scores)]
    return {
        way: {f"R@{k}": float(np.mean([rank <= k for rank in found])) for k in (1, 5, 10)}
        for way, found in (("text_to_image", text_ranks), ("image_to_text", image_ranks))
    }


def features(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities to five captions of each image with a recall of about 0.5, and the owners of the captions."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(count, 12, generator=draw)
    owners = torch.arange(count).repeat_interleave(5)
    texts = images[owners] + 0.75 * torch.randn(len(owners), 12, generator=draw)
    return torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T, owners


def test_5k_equals_a_brute_force_loop() -> None:
    """The size of the test split of COCO: 5,000 images, 25,000 captions."""
    similarity, owners = features(5000)
    found = recall_both_ways(similarity, owners)
    assert 0.1 < found["text_to_image"]["R@1"] < found["image_to_text"]["R@5"] < 0.95
    oracle = brute_force(similarity.numpy(), owners.numpy())
    assert found == {way: pytest.approx(recalls) for way, recalls in oracle.items()}


def test_folds_equal_the_mean_of_their_brute_force_loops() -> None:
    similarity, owners = features(300)
    scores, owned = similarity.numpy(), owners.numpy()
    folds = [
        brute_force(scores[at : at + 100, 5 * at : 5 * at + 500], owned[5 * at : 5 * at + 500] - at)
        for at in range(0, 300, 100)
    ]
    found = recall_in_folds(similarity, owners, 100)
    for way, recalls in found.items():
        assert recalls == pytest.approx({key: np.mean([fold[way][key] for fold in folds]) for key in recalls})
    # Where the captions stand does not matter.
    order = torch.randperm(len(owners), generator=torch.Generator().manual_seed(1))
    assert recall_in_folds(similarity[:, order], owners[order], 100) == found


def test_both_ways_by_hand() -> None:
    owners = torch.tensor([1, 0, 0, 1])
    similarity = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.3, 0.4, 0.0, 0.7]])
    assert recall_both_ways(similarity, owners, (1, 2)) == {
        # Captions 1 and 2 like image 0 best, as they should, caption 3 image 1; caption 0 is wrong.
        "text_to_image": {"R@1": 0.75, "R@2": 1},
        # Image 0's best caption is 1's, its second is its own; image 1's best is its own.
        "image_to_text": {"R@1": 0.5, "R@2": 1},
    }
    assert recall_in_folds(similarity, owners, 1, (1,)) == {
        "text_to_image": {"R@1": 1},
        "image_to_text": {"R@1": 1},
    }


@pytest.mark.parametrize(
    ("similarity", "owners", "message"),
    [
        (torch.zeros(2, 3), [0, 1], r"owners of shape \(2,\) for 3 captions"),
        (torch.zeros(2, 2), [0, 2], r"caption 1 belongs to image 2: give an index in 0\.\.1"),
        (torch.zeros(2, 2), [0, 0], "gold of query 1"),
        (torch.zeros(0, 2), [0, 0], r"\(0, 2\)"),
    ],
)
def test_owners_that_do_not_fit(similarity: torch.Tensor, owners: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recall_both_ways(similarity, torch.tensor(owners))


def test_folds_must_be_full() -> None:
    with pytest.raises(InputError, match="3 images do not fill folds of 2"):
        recall_in_folds(torch.zeros(3, 3), torch.arange(3), 2)
