"""Ties: equal rows at many places, sizes and numbers of threads; order by index; ranks against the model."""

from __future__ import annotations

import math

import pytest
import torch

from ashnets.metrics.retrieval import ranks, recall_both_ways
from ashnets.ties import COSINES, TIE, best, products, products_of_own

SIZES = [*range(1, 34), 39, 47, 48, 49, 63, 64, 65, 70]  # kernels add in another order at the edges of their blocks


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("width", [1, 3, 256, 770])
def test_products_are_those_of_a_loop_and_depend_on_their_rows_alone(threads, width: int) -> None:
    queries, items = unit(5, width), 3e4 * unit(67, width, seed=1)
    whole = products(queries, items)
    for i in range(5):
        for j in (0, 1, 31, 66):
            # 770 numbers are rounded to 21 bits of the largest: see the formula of the module.
            sum_ = math.fsum((queries[i].double() * items[j].double()).tolist())
            assert abs(float(whole[i, j]) - sum_) <= 3e4 * 2.0**-21
            assert torch.equal(products(queries[i : i + 1], items[j : j + 1]), whole[i : i + 1, j : j + 1])
    assert torch.equal(products(items, queries).T, whole)
    for size in (1, 2, 8, 33, 66):
        assert torch.equal(products(queries[:3], items[:size]), whole[:3, :size])
        assert torch.equal(products_of_own(queries[:3], items[:size].expand(3, -1, -1)), whole[:3, :size])


def test_the_last_bit_is_right_where_sums_in_another_order_differ() -> None:
    """2^22 + 1 has 23 bits: such rows are on the grid of width 2, so their product is exact."""
    one = torch.tensor([[4194303.0, 1.0]])
    assert products(one, torch.tensor([[1.0, 1.0], [1.0, -1.0]])).tolist() == [[4194304.0, 4194302.0]]


def test_equal_rows_have_equal_scores_at_every_size(threads) -> None:
    """Rows of a blind model. On an AMD EPYC, many of these products differ between rows in float32."""
    texts, image = unit(33, 256), unit(1, 256, seed=1)
    expected = products(texts, image)
    for size in SIZES:
        images = image.expand(size, -1).contiguous()
        similarity = products(images, texts)
        assert torch.equal(similarity, expected.T.expand(size, -1)), size
        owners = torch.arange(33) % size
        if size <= 33:
            found = recall_both_ways(similarity, owners, (1, size - 1, size), COSINES)["text_to_image"]
            assert found["R@1"] == (size == 1) and found[f"R@{size}"] == 1 and not (size > 1 and found[f"R@{size - 1}"])
        assert best(similarity.T, size).tolist() == [list(range(size))] * 33


def test_equal_rows_among_others_tie_wherever_they_stand(threads) -> None:
    kinds, texts = unit(9, 256), unit(20, 256, seed=1)
    for size in SIZES[8::5]:
        kind = torch.randint(9, (size,), generator=torch.Generator().manual_seed(size))
        cosines = (texts.double() @ kinds.double().T)[:, kind]  # equal rows share one product
        similarity = products(texts, kinds[kind])
        order = [sorted(range(size), key=lambda i: (-row[i], i)) for row in cosines.tolist()]
        for k in (1, 2, size // 2, size):
            assert best(similarity, k).tolist() == [row[:k] for row in order]
        gold = torch.arange(20) % size
        loop = [
            1 + sum(c >= row[own] for i, c in enumerate(row) if i != own)
            for row, own in zip(cosines.tolist(), gold.tolist(), strict=True)
        ]
        assert ranks(similarity, gold, COSINES).tolist() == loop


def test_the_best_are_the_first_of_more_in_the_order_of_their_index() -> None:
    scores = torch.randint(-2, 3, (40, 17), generator=torch.Generator().manual_seed(0)).float()
    scores[scores == 0] = torch.tensor([0.0, -0.0]).repeat(340)[: int((scores == 0).sum())]
    order = [sorted(range(17), key=lambda i: (-row[i], i)) for row in scores.tolist()]
    for k in range(1, 18):
        assert best(scores, k).tolist() == [row[:k] for row in order]


def test_a_rank_counts_what_is_as_high_within_the_tolerance() -> None:
    near, far = 1 - TIE / 2, 1 - 3 * TIE
    assert ranks(torch.tensor([[1.0, near, 0.0], [1.0, far, 0.0]]), [{0}, {0}]).tolist() == [2, 1]
    # It grows and shrinks with the scores, but for those whose rounding does not.
    for size in (1e-9, 1e9):
        assert ranks(size * torch.tensor([[1.0, near, 0.0], [1.0, far, 0.0]]), [{0}, {0}]).tolist() == [2, 1]
    probabilities = torch.tensor([[3e-8, 1e-8, 0.9]])
    assert ranks(probabilities, [{0}]).tolist() == [2]
    assert ranks(probabilities, [{0}], scale=1.0).tolist() == [3]
    assert ranks(torch.tensor([[math.inf, 0.0], [-math.inf, 0.0]]), [{0}, {0}]).tolist() == [1, 2]
