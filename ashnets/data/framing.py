"""Whether images fill their frame, as photographs do, or stand on a plain ground, as drawings and cut-outs do."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ashnets.data.images import load_image
from ashnets.data.pairs import Pairs
from ashnets.errors import DataError

LOOKED_AT = 64  # images, which show the kind of a folder
_SIDE = 32
_EQUAL = 0.05  # of the range of a channel: as near as this, colors count as one


def fills_frame(image: Image.Image) -> bool:
    """Whether less than half of the border of an image has one color; transparent pixels are white."""
    small = load_image(image).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64) / 255  # (S, S, 3)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])  # (4·S − 4, 3)
    near = np.abs(border - np.median(border, axis=0)).max(axis=1) < _EQUAL
    return bool(near.mean() < 0.5)


def filling_frame(pairs: Pairs, seed: int = 0) -> tuple[int, int]:
    """How many images of a random sample fill their frame, and the number of readable images in it."""
    order = np.random.default_rng(seed).permutation(len(pairs))[:LOOKED_AT]
    filled = looked = 0
    for index in sorted(order.tolist()):
        try:
            filled += fills_frame(pairs.open(index))
        except DataError:
            continue
        looked += 1
    return filled, looked
