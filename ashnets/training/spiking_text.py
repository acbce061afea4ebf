r"""What the spikes say of a text: STUA's own alignment as retrieval (eq. 9, 10).

    r(S, L) = h_v(v)ᵀ h_w(w)        v the mean over tokens of SR·F_SNN, w the [CLS] of a text alone

An image's spikes rank the texts of all images. Nothing of the concrete branch is in v but the ratio SR, so that this
measures the spiking branch where retrieval by ITC hardly sees it.
"""

from __future__ import annotations

from typing import Any

import torch
from tqdm import tqdm

from ashnets.data.pairs import Pairs
from ashnets.metrics.retrieval import chance_at, recall_at
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.sampling import image_key
from ashnets.retrieval.embedding import tokenize
from ashnets.ties import COSINES, products

KS = (1, 5, 10)


@torch.inference_mode()
def spiking_to_text(
    model: AshNetsForPreTraining, tokenizer: Any, pairs: Pairs, batch: int = 64, progress: bool = True
) -> dict[str, Any]:
    """R@K of spikes → text over the images of ``pairs``, each from a reset state; a text is a bare name, or a first caption.

    Args:
        model: in evaluation mode, with STUA's projections and hence a spiking branch.

    Returns:
        ``{"images", "texts", "R@1", "R@5", "R@10", "chance": {"R@1", …}}``, recalls in [0, 1].

    Raises:
        DataError: an image cannot be read.
    """
    texts = list(dict.fromkeys(pairs.names))
    place = {text: number for number, text in enumerate(texts)}
    gold = [{place[name]} for name in pairs.names]
    described = []
    for start in range(0, len(texts), batch):
        tokens = tokenize(tokenizer, texts[start : start + batch], model.config.max_text_length).to(model.device)
        hidden, _ = model.ashnets.transformer(tokens["input_ids"], tokens["attention_mask"], None)
        described.append(model.stua.project_text(hidden))  # (b, 256)
    spiking = []
    starts = range(0, len(pairs), batch)
    for start in tqdm(starts, desc="embedding spikes", unit="batch", leave=False, disable=not progress or None):
        part = range(start, min(start + batch, len(pairs)))
        keys = [image_key(pairs.image_ids[i]) for i in part]
        visual = model.ashnets.vision(pairs.on_white(part).to(model.device), image_keys=keys)
        spiking.append(model.stua.project_spiking(visual))  # (b, 256)
    similarity = products(torch.cat(spiking), torch.cat(described))  # (n, texts)
    found = recall_at(similarity, gold, KS, COSINES)
    return {"images": len(pairs), "texts": len(texts), **found, "chance": chance_at(gold, len(texts), KS)}
