r"""When two scores are equal, and how ties are ordered: for all rankings.

Rounding must not decide. A floating-point matrix product adds in an order that depends on the place in the matrix, the
threads and the processor, so that scores of equal rows may differ in the last bit. Hence:

1. Inner products are exact (:func:`products`). Each row is rounded to integers of at most b bits times a power of two,

       x ≈ 2^(e − b) · n,   |n| ≤ 2^b,   2^(e − 1) ≤ max|x| < 2^e,   b = ⌊(53 − ⌈log2 D⌉) / 2⌋

   so that Σ n m ≤ D · 2^(2b) ≤ 2^53: every partial sum is exact in float64, in any order. Equal rows then have equal
   scores on every machine. With D = 256, b = 22, and this rounding changed cosines by at most 3e-7 (measured).
2. In a sorted list, equal scores are ordered by their index (:func:`best`): the best k are the first k of the best n.
3. A rank counts ties against the model, with the tolerance `TIE`: embeddings and log-odds of equal inputs differ by the
   rounding of the network (:func:`ashnets.metrics.retrieval.ranks`).
"""

from __future__ import annotations

import torch

# About 1e-6, relative. In ashnets-tiny, between batches and between one and two threads, cosines changed by at most
# 3e-7, log-odds of matching by at most 1.4e-6 (their tolerance is 8e-6, by `LOG_ODDS`).
TIE = 2.0**-20
COSINES, LOG_ODDS = 1.0, 8.0  # scales: size of the terms whose rounding error remains if a score is near 0
_BITS = 53  # precision of float64
_ROWS = 2048  # rows multiplied at once


def products(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Inner products of all rows of (Q, D) and (G, D), (Q, G), float32.

    Each depends only on its two rows, not on their places, other rows, threads or the processor.
    """
    found = torch.empty(len(queries), len(items), device=queries.device)
    left = _on_grid(queries)
    for start in range(0, len(items), _ROWS):
        right = _on_grid(items[start : start + _ROWS]).T
        for at in range(0, len(queries), _ROWS):
            found[at : at + _ROWS, start : start + _ROWS] = left[at : at + _ROWS] @ right
    return found


def products_of_own(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """The same products, equal to the bit, of each query (Q, D) and its own items (Q, K, D): (Q, K)."""
    return (_on_grid(items) @ _on_grid(queries).unsqueeze(-1)).squeeze(-1).float()


def best(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the k highest scores of each row of (Q, G), best first, ties by index: (Q, k)."""
    return torch.cat([_best(block, k) for block in scores.split(_ROWS)])


def _best(scores: torch.Tensor, k: int) -> torch.Tensor:
    values, places = scores.topk(k, dim=1)
    places = places.sort(dim=1).values
    places = places.gather(1, _order(scores.gather(1, places)))
    several = (scores >= values[:, -1:]).sum(1) > k  # ties with the last one: topk chose any of them
    places[several] = _order(scores[several])[:, :k]
    return places


def _order(scores: torch.Tensor) -> torch.Tensor:
    # + 0 makes negative zeros positive: a sort by bits would order the two zeros.
    return (scores + 0).sort(dim=1, descending=True, stable=True).indices


def _on_grid(rows: torch.Tensor) -> torch.Tensor:
    """(..., D), float64: each row rounded to multiples of its own power of two."""
    bits = (_BITS - (rows.shape[-1] - 1).bit_length()) // 2
    largest = torch.linalg.vector_norm(rows, torch.inf, -1, keepdim=True, dtype=torch.float64)
    exponent = torch.frexp(largest).exponent.long() - bits
    return rows.to(torch.float64, copy=True).mul_(_power_of_two(-exponent)).round_().mul_(_power_of_two(exponent))


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """2^exponent, exactly, which pow does not guarantee."""
    return ((exponent.clamp(-1022, 1023) + 1023) << 52).view(torch.float64)
