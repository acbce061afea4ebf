"""Images and texts to the unit vectors of 256 that ITC compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ashnets.data.pairs import Pairs
from ashnets.data.vocabulary import encode
from ashnets.errors import DataError
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.sampling import image_key


@torch.inference_mode()
def embed_images(
    model: AshNetsForRetrieval,
    pairs: Pairs,
    indices: Sequence[int] | np.ndarray | None = None,
    batch: int = 64,
    progress: bool = True,
    keep_tokens: bool = True,
    unreadable: dict[str, str] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (n, 256) and visual tokens (n, N, M1) of images, each from a reset state.

    Args:
        indices: which of ``pairs``; all by default.
        keep_tokens: with False the tokens are empty, (0,).
        unreadable: where given, images that cannot be read are noted here, name → why, and embedded as blank.

    Raises:
        DataError: an image cannot be read, and ``unreadable`` is not given.
    """
    chosen = range(len(pairs)) if indices is None else indices
    embeds = [torch.empty(0, model.config.projection_size, device=model.device)]
    tokens: list[Any] = []
    starts = range(0, len(chosen), batch)
    for start in tqdm(starts, desc="embedding images", unit="batch", leave=False, disable=not progress or None):
        part = [int(i) for i in chosen[start : start + batch]]
        pixels = torch.stack([_on_white(pairs, i, unreadable) for i in part]).to(model.device)
        keys = [image_key(pairs.image_ids[i]) for i in part]
        embed, visual = model.encode_image(pixels, image_keys=keys, **options)
        embeds.append(embed)
        if keep_tokens:
            tokens.append(visual.output)
    return torch.cat(embeds), torch.cat(tokens) if tokens else torch.empty(0)


def images_at_rest(
    pairs: Pairs, indices: Sequence[int] | np.ndarray, batch: int = 32
) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Images (B, 3, S, S) as `embed_images` shows them, in batches with their keys. Raises DataError as it does."""
    for start in range(0, len(indices), batch):
        part = indices[start : start + batch]
        yield pairs.on_white(part), [image_key(pairs.image_ids[int(i)]) for i in part]


def _on_white(pairs: Pairs, index: int, unreadable: dict[str, str] | None) -> torch.Tensor:
    try:
        return pairs.on_white([index])[0]
    except DataError as error:
        if unreadable is None:
            raise
        unreadable[pairs.image_ids[index]] = str(error)
        return torch.ones(3, pairs.side, pairs.side)


@torch.inference_mode()
def embed_texts(model: AshNetsForRetrieval, tokenizer: Any, texts: list[str], batch: int = 256) -> torch.Tensor:
    """Embeddings (n, 256) of texts."""
    embeds = []
    for start in range(0, len(texts), batch):
        tokens = tokenize(tokenizer, texts[start : start + batch], model.config.max_text_length)
        tokens = tokens.to(model.device)
        embeds.append(model.encode_text(tokens["input_ids"], tokens["attention_mask"]))
    return torch.cat(embeds)


def tokenize(tokenizer: Any, texts: list[str], max_length: int) -> Any:
    """Token ids and masks of texts, (B, L), and which tokens are special."""
    return encode(tokenizer, texts, max_length, return_tensors="pt", return_special_tokens_mask=True)
