"""Which drawings differ visibly from those before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ashnets.data.images import load_rgba

_SIDE = 16
_NEAR = 4.0  # mean difference of a channel, of 255
_BLANK = 2.0


def distinct(images: Sequence[bytes]) -> tuple[list[int], dict[str, int]]:
    """Indices of the drawings to keep, and how many are blank or a near-duplicate of an earlier one.

    Compared on white at 16 x 16 pixels, in color: a near-duplicate differs by less than 4 of 255 on average.
    """
    kept: list[int] = []
    small = np.empty((len(images), _SIDE * _SIDE * 3), np.float32)
    lost = {"blank": 0, "near-duplicates": 0}
    for index, data in enumerate(images):
        image = load_rgba(data)
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        pixels = np.asarray(white.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32).ravel()
        if pixels.std() < _BLANK:
            lost["blank"] += 1
        elif kept and np.abs(small[: len(kept)] - pixels).mean(1).min() < _NEAR:
            lost["near-duplicates"] += 1
        else:
            small[len(kept)] = pixels
            kept.append(index)
    return kept, lost
