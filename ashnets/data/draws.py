r"""The random draws of a training pair, as functions of (seed, epoch, image) alone.

The crop, caption, masks and negatives of an image, like its spikes, do not depend on batch, rank, number of workers or
resuming: in each epoch, each image has its own counter-based random stream (Philox).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_PAIR = {"augment": 15, "caption": 2, "fused": 1, "negative_text": 1, "negative_image": 1, "concept": 1}


@dataclass
class Draws:
    """Uniform numbers in [0, 1) for B pairs, float32.

    Attributes:
        augment: (B, 15), of :func:`ashnets.data.augment.augment` or :func:`ashnets.data.photographs.vary`.
        caption: (B, 2): whether to use the name or another caption, and which caption.
        fused: (B,): ITM, MLM and MVM use the images with the smallest values of a group.
        negative_text, negative_image: (B,), of ITM's hard negatives.
        concept: (B,), of the label that MVM masks.
        words: (B, 3, L), of MLM: whether to mask, how to replace, which random token.
    """

    augment: torch.Tensor
    caption: torch.Tensor
    fused: torch.Tensor
    negative_text: torch.Tensor
    negative_image: torch.Tensor
    concept: torch.Tensor
    words: torch.Tensor


def draw(seed: int, epoch: int, image_keys: Sequence[int], length: int) -> Draws:
    """The draws of the images with ``image_keys`` (see :func:`ashnets.model.sampling.image_key`) in an epoch.

    Args:
        length: L, maximum number of tokens of a text.
    """
    total = sum(_PAIR.values()) + 3 * length
    uniform = np.empty((len(image_keys), total), dtype=np.float32)
    for row, key in zip(uniform, image_keys, strict=True):
        state = [seed * 1_000_003 + epoch & 0xFFFFFFFFFFFFFFFF, key & 0xFFFFFFFFFFFFFFFF]
        stream = np.random.Philox(key=np.array(state, dtype=np.uint64))  # as a list, floats from 2⁶³ on
        np.random.Generator(stream).random(dtype=np.float32, out=row)
    parts = dict(zip(_PAIR, torch.from_numpy(uniform).split([*_PAIR.values(), 3 * length], 1), strict=False))
    words = torch.from_numpy(uniform[:, -3 * length :]).unflatten(1, (3, length))
    return Draws(words=words, **{name: part.squeeze(1) for name, part in parts.items()})
