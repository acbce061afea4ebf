r"""Retrieval of texts by the spikes alone: STUA's own alignment as retrieval (eq. 9, 10).

    r(S, L) = h_v(v)ᵀ h_w(w)        v the mean over tokens of SR·F_SNN, w the [CLS] of a text alone

An image's spikes rank the texts of all images. Nothing of the concrete branch is in v but the ratio SR, so that this
measures the spiking branch where retrieval by ITC hardly sees it.
"""

from __future__ import annotations

from typing import Any

import torch

from ashnets.data.vocabulary import tokenize
from ashnets.evaluation.embedding import ImageBatches
from ashnets.evaluation.options import EvaluationOptions
from ashnets.evaluation.prediction import shares_of, shown
from ashnets.evaluation.retrieval import RetrievalSet
from ashnets.metrics.retrieval import recall_at
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.ties import COSINES, products


@torch.inference_mode()
def spiking_to_text(
    model: AshNetsForPreTraining, tokenizer: Any, measured: RetrievalSet, options: EvaluationOptions
) -> dict[str, Any]:
    """R@K of spikes → text, each image from a reset state.

    Args:
        model: in evaluation mode, with STUA's projections and hence a spiking branch.

    Returns:
        ``{"images", "texts", "R@1", "R@5", "R@10", "chance": {"R@1", …}}``, recalls in [0, 1].

    Raises:
        DataError: an image cannot be read.
    """
    texts, batch, described, spiking = measured.texts, options.batch, [], []
    for start in range(0, len(texts), batch):
        tokens = tokenize(tokenizer, texts[start : start + batch], model.config.max_text_length).to(model.device)
        hidden, _ = model.ashnets.transformer(tokens["input_ids"], tokens["attention_mask"], None)  # (b, L, M1)
        described.append(model.stua.project_text(hidden))  # (b, D)
    batches = ImageBatches(measured.images, shares_of(measured.indices, 1, batch))
    for _, (pixels, keys) in shown(batches, options.workers, "embedding spikes", options.progress):
        visual = model.ashnets.vision(pixels.to(model.device), image_keys=keys)
        spiking.append(model.stua.project_spiking(visual))  # (b, D)
    similarity = products(torch.cat(spiking), torch.cat(described))  # (G, C)
    found = recall_at(similarity, measured.texts_of, scale=COSINES)
    counts = {"images": len(measured.indices), "texts": len(texts)}
    return {**counts, **found, "chance": measured.chance["image_to_text"]}
