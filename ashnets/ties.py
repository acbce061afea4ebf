r"""When two scores are equal, and what comes first then: for everything that ranks.

Rounding must not decide. A product of matrices in floating point adds in an order that depends on the place in the
matrix, the threads and the processor, so that equal rows get scores that differ in their last bit. Hence:

1. Inner products are exact (:func:`products`). Each row is rounded to integers of at most b bits times a power of two,

       x ≈ 2^(e − b) · n,   |n| ≤ 2^b,   2^(e − 1) ≤ max|x| < 2^e,   b = ⌊(53 − ⌈log2 D⌉) / 2⌋

   so that Σ n m ≤ D · 2^(2b) ≤ 2^53: float64 holds every partial sum without rounding, in any order. Equal rows then
   have equal scores, everywhere. With D = 256, b = 22, and this rounding moved cosines by 3e-7 at most (measured).
2. Where an order is needed, equal scores stand in the order of their index (:func:`best`): the best k are the first k
   of the best n.
3. A rank counts ties against the model, within `TIE`: embeddings and log-odds of equal inputs differ by the rounding
   of the network that made them (:func:`ashnets.metrics.retrieval.ranks`).
"""

from __future__ import annotations

import torch

# About 1e-6, relative. In ashnets-tiny, from batch to batch and from one thread to two, cosines moved by at most 3e-7,
# log-odds of matching (their `LOG_ODDS` is then 8e-6) by at most 1.4e-6.
TIE = 2.0**-20
COSINES, LOG_ODDS = 1.0, 8.0  # scales: how large the terms are whose rounding remains where a score is near 0
_BITS = 53  # of a float64
_ROWS = 2048  # multiplied at once


def products(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Inner products of all rows of (Q, D) and (G, D), (Q, G), float32.

    Each depends on its two rows alone: not on their places, on other rows, on threads or on the processor.
    """
    found = torch.empty(len(queries), len(items), device=queries.device)
    left = _on_grid(queries)
    for start in range(0, len(items), _ROWS):
        right = _on_grid(items[start : start + _ROWS]).T
        for at in range(0, len(queries), _ROWS):
            found[at : at + _ROWS, start : start + _ROWS] = left[at : at + _ROWS] @ right
    return found


def products_of_own(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """The same, to the bit, of each query (Q, D) and items of its own (Q, K, D): (Q, K)."""
    return (_on_grid(items) @ _on_grid(queries).unsqueeze(-1)).squeeze(-1).float()


def best(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the k highest of each row of (Q, G), best first, equal ones in the order of their index: (Q, k)."""
    return torch.cat([_best(block, k) for block in scores.split(_ROWS)])


def _best(scores: torch.Tensor, k: int) -> torch.Tensor:
    values, places = scores.topk(k, dim=1)
    places = places.sort(dim=1).values
    places = places.gather(1, _order(scores.gather(1, places)))
    several = (scores >= values[:, -1:]).sum(1) > k  # that equal the last one: topk has taken any of them
    places[several] = _order(scores[several])[:, :k]
    return places


def _order(scores: torch.Tensor) -> torch.Tensor:
    # With + 0 no zero is negative: a sort by bits would tell the two zeros apart.
    return (scores + 0).sort(dim=1, descending=True, stable=True).indices


def _on_grid(rows: torch.Tensor) -> torch.Tensor:
    """(..., D), float64: each row rounded to multiples of its own power of two."""
    bits = (_BITS - (rows.shape[-1] - 1).bit_length()) // 2
    largest = torch.linalg.vector_norm(rows, torch.inf, -1, keepdim=True, dtype=torch.float64)
    exponent = torch.frexp(largest).exponent.long() - bits
    return rows.to(torch.float64, copy=True).mul_(_power_of_two(-exponent)).round_().mul_(_power_of_two(exponent))


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """Exactly, which pow does not promise."""
    return ((exponent.clamp(-1022, 1023) + 1023) << 52).view(torch.float64)
