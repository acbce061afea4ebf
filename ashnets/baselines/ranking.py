"""Retrieval of each kind of model by what it has: embeddings (ITC), or a matching score for every pair (ITM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ashnets.data.pairs import Pairs
from ashnets.metrics.retrieval import chance_at
from ashnets.model.sampling import image_key
from ashnets.retrieval.embedding import embed_images, embed_texts
from ashnets.retrieval.two_stage import matching_score, rank_by_embeddings, rank_exhaustively

KS = (1, 5, 10)
_BATCH = 64


def draw(pairs: Pairs, sample: int, seed: int = 0) -> list[int]:
    """Some images of a split, the same for every model; all if ``sample`` is 0."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return sorted(order[: sample or len(pairs)].tolist())


@torch.inference_mode()
def recalls(model: Any, tokenizer: Any, pairs: Pairs, indices: Sequence[int], progress: bool = True) -> dict[str, Any]:
    """R@K both ways between images and their bare names.

    Returns:
        ``{"ranking", "images", "texts", "text_to_image": {"R@1", ...}, "image_to_text", "chance": {way: {...}},
        "pairs_scored", "seconds"}``; seconds of ranking alone, without embedding.
    """
    names = [pairs.names[i] for i in indices]
    texts = list(dict.fromkeys(names))
    gold_text = [{texts.index(name)} for name in names]
    gold_image = [{i for i, name in enumerate(names) if name == text} for text in texts]
    if hasattr(model, "encode_text"):
        kind = "ITC"
        images, _ = embed_images(model, pairs, indices, progress=progress, keep_tokens=False)
        ranking = rank_by_embeddings(embed_texts(model, tokenizer, texts), images)
    else:
        kind = "ITM on all pairs"
        match = matching_score(model, tokenizer, texts, visual_tokens(model, pairs, indices))
        ranking = rank_exhaustively(len(texts), len(names), match, progress)
    return {
        "ranking": kind,
        "images": len(names),
        "texts": len(texts),
        **ranking.recalls(gold_image, gold_text, KS),
        "chance": {
            "text_to_image": chance_at(gold_image, len(names), KS),
            "image_to_text": chance_at(gold_text, len(texts), KS),
        },
        "pairs_scored": ranking.cost.pairs,
        "seconds": ranking.cost.seconds,
    }


@torch.inference_mode()
def visual_tokens(model: Any, pairs: Pairs, indices: Sequence[int]) -> torch.Tensor:
    """(n, N, M1) of images."""
    found = []
    for start in range(0, len(indices), _BATCH):
        part = indices[start : start + _BATCH]
        keys = [image_key(pairs.image_ids[i]) for i in part]
        found.append(model.ashnets.vision(pairs.on_white(part).to(model.device), image_keys=keys).output)
    return torch.cat(found)


@torch.inference_mode()
def matching_accuracy(model: Any, tokenizer: Any, pairs: Pairs, indices: Sequence[int], seed: int) -> float:
    """Share of pairs that are judged rightly: each image with its name, and with another image's; chance is ½."""
    order = np.random.default_rng(seed).permutation(len(indices))
    texts = [pairs.names[i] for i in indices]
    own = torch.arange(len(indices))
    other = torch.empty_like(own)
    other[torch.as_tensor(order)] = torch.as_tensor(np.roll(order, 1))
    differs = torch.tensor([texts[i] != texts[int(j)] for i, j in enumerate(other)])
    score = matching_score(model, tokenizer, texts, visual_tokens(model, pairs, indices))
    right = torch.cat([score(own, own) > 0, score(other, own)[differs] <= 0])
    return float(right.float().mean())
