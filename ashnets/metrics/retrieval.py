r"""Retrieval: recall at K over a table of similarities, its chance level, and re-ranking of the best candidates.

    R@K = share of queries with a right item among the K best

On COCO and Flickr30K an image has five captions. Text → image asks for the image of each caption; image → text
counts the best of an image's captions. COCO's "1K" is the mean over five folds of 1,000 images in the order of
Karpathy's test split, its "5K" ranks them all (Karpathy and Fei-Fei, 2015; Faghri et al., VSE++, 2018).

A right item ranks behind every wrong item with the same score: a model that gives all pairs one score has R@K = 0.
:mod:`ashnets.ties` defines which scores count as equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ashnets.errors import InputError
from ashnets.ties import TIE

KS = (1, 5, 10)
Gold = Sequence[set[int]] | torch.Tensor
_BLOCK = 1024


def recall_at(similarity: torch.Tensor, gold: Gold, ks: Sequence[int] = KS, scale: float = 0.0) -> dict[str, float]:
    """R@K of Q queries over G items.

    Args:
        similarity: (Q, G), higher is better.
        gold: the right items of each query: a set of indices each, or (Q,) with one index each.
        ks: the K; one above G gives 1.
        scale: see :func:`ranks`.

    Returns:
        ``{"R@1": …, "R@5": …, "R@10": …}``, each in [0, 1].

    Raises:
        InputError: see :func:`ranks`.
    """
    best = ranks(similarity, gold, scale)
    return {f"R@{k}": float((best <= k).double().mean()) for k in ks}


def ranks(similarity: torch.Tensor, gold: Gold, scale: float = 0.0) -> torch.Tensor:
    """Rank of each query's best right item, from 1: one plus the number of wrong items that score at least as high,

        s_wrong ≥ s_right − TIE · max(|s_right|, scale)

    Args:
        similarity: (Q, G). Queries are ranked in blocks, so little more memory than its own is needed.
        gold: see :func:`recall_at`.
        scale: where rounding does not shrink with the score, how large scores are: 1 for cosines. 0 leaves the
            tolerance relative, which suits scores of every kind that have no such scale, as probabilities.

    Returns:
        (Q,), integers.

    Raises:
        InputError: no queries, NaN scores, or gold that does not fit.
    """
    if similarity.dim() != 2 or 0 in similarity.shape:
        raise InputError(f"similarity of shape {tuple(similarity.shape)}: give (Q, G), at least one of each")
    if len(gold) != len(similarity):
        raise InputError(
            f"gold for {len(gold)} queries, similarities for {len(similarity)}: give one entry for each query"
        )
    found = []
    for start in range(0, len(similarity), _BLOCK):
        block = similarity[start : start + _BLOCK].contiguous()
        if bool(block.isnan().any()):
            raise InputError("the similarities contain NaN: the model or its input is damaged")
        right = _as_mask(block, gold[start : start + _BLOCK], start)
        best = block.masked_fill(~right, -math.inf).amax(1, keepdim=True)
        least = torch.where(best.isfinite(), best - TIE * best.abs().clamp(min=scale), best)
        found.append(1 + ((block >= least) & ~right).sum(1))
    return torch.cat(found)


def recall_both_ways(
    similarity: torch.Tensor, owners: torch.Tensor, ks: Sequence[int] = KS, scale: float = 0.0
) -> dict[str, dict[str, float]]:
    """R@K of text → image and of image → text.

    Args:
        similarity: (I, C), images by captions, higher is better.
        owners: (C,), the image that each caption is about.
        ks: the K.
        scale: see :func:`ranks`.

    Returns:
        ``{"text_to_image": {"R@1": …}, "image_to_text": {…}}``, in [0, 1].

    Raises:
        InputError: shapes that do not fit, an owner that is not an image, an image without caption, NaN scores.
    """
    if similarity.dim() != 2 or 0 in similarity.shape:
        raise InputError(f"similarity of shape {tuple(similarity.shape)}: give (I, C), at least one of each")
    images, captions = similarity.shape
    owned: list[set[int]] = [set() for _ in range(images)]
    if owners.shape != (captions,):
        raise InputError(f"owners of shape {tuple(owners.shape)} for {captions} captions: give one image for each")
    for caption, image in enumerate(owners.tolist()):
        if not 0 <= image < images:
            raise InputError(f"caption {caption} belongs to image {image}: give an index in 0..{images - 1}")
        owned[image].add(caption)
    return {
        "text_to_image": recall_at(similarity.T, owners, ks, scale),
        "image_to_text": recall_at(similarity, owned, ks, scale),
    }


def recall_in_folds(
    similarity: torch.Tensor,
    owners: torch.Tensor,
    size: int = 1000,
    ks: Sequence[int] = KS,
    scale: float = 0.0,
) -> dict[str, dict[str, float]]:
    """`recall_both_ways` within each fold of ``size`` consecutive images and their captions; the mean over folds.

    Args:
        similarity: (I, C); I must be a multiple of ``size``.
        owners: (C,).

    Raises:
        InputError: as `recall_both_ways`, and where the images do not fill the folds.
    """
    images = len(similarity)
    if size < 1 or images % size:
        raise InputError(f"{images} images do not fill folds of {size}: give a multiple of it")
    found = []
    for start in range(0, images, size):
        inside = (owners >= start) & (owners < start + size)
        fold = similarity[start : start + size, inside.to(similarity.device)]
        found.append(recall_both_ways(fold, owners[inside] - start, ks, scale))
    return {way: {key: sum(fold[way][key] for fold in found) / len(found) for key in found[0][way]} for way in found[0]}


def chance_at(gold: Gold, items: int, ks: Sequence[int] = KS) -> dict[str, float]:
    """R@K of a random order: the mean over queries of 1 − C(G − m, K)/C(G, K), with m right items of G."""
    sizes = [len(g) if isinstance(g, set) else 1 for g in gold]
    if not sizes:
        raise InputError("no queries: chance needs at least one")

    def hit(m: int, k: int) -> float:
        return 1 - math.comb(items - m, min(k, items)) / math.comb(items, min(k, items))

    return {f"R@{k}": sum(hit(m, k) for m in sizes) / len(sizes) for k in ks}


def rerank(
    similarity: torch.Tensor,
    candidates: torch.Tensor,
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Re-rank some items of each query ahead of all others.

    Args:
        similarity: (Q, G), a first ranking.
        candidates: (Q, k), the items to re-rank; all others keep their order behind them.
        score: (P,) query indices and (P,) item indices to (P,) finite scores, higher is better.

    Returns:
        (Q, G), similarities whose order is the new one; only the order has a meaning.
    """
    rows = torch.arange(len(similarity), device=similarity.device).unsqueeze(1).expand_as(candidates)
    scores = score(rows.reshape(-1), candidates.reshape(-1)).view(candidates.shape).to(similarity)
    # Everything else moves below the lowest new score, by more than its own span.
    low = scores.amin(1, keepdim=True) - 1
    rest = similarity - similarity.amax(1, keepdim=True) + low
    return rest.scatter(1, candidates, scores)


def _as_mask(similarity: torch.Tensor, gold: Gold, first: int) -> torch.Tensor:
    """(Q, G), True at the right items; the queries are those from number ``first`` on."""
    queries, items = similarity.shape
    sets = [{int(g)} for g in gold] if isinstance(gold, torch.Tensor) else list(gold)
    mask = torch.zeros(queries, items, dtype=torch.bool)
    for query, indices in enumerate(sets):
        if not indices or min(indices) < 0 or max(indices) >= items:
            raise InputError(f"gold of query {first + query} is {sorted(indices)}: give item indices in 0..{items - 1}")
        mask[query, list(indices)] = True
    return mask.to(similarity.device)
