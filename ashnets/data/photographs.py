r"""Augmentation of photographs, as the field does it: a random resized crop, a flip, and RandAugment.

The crop covers at least half of the image, so that captions stay true; its aspect ratio is between 3/4 and 4/3. If
the image's own ratio exceeds 3:2, the crop may be smaller: a third of an image of 3.2:1. An image is not flipped if
its caption says left or right. RandAugment (Cubuk et al., 2020) applies `OPERATIONS` of the list below at magnitude
`MAGNITUDE` of 10, with timm's ranges. As in ALBEF (Li et al., 2021), inversion, solarization, posterization and
changes of color are left out, because captions name colors. Pillow computes every operation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

SCALE = (0.5, 1.0)  # of the image's area
RATIO = (3 / 4, 4 / 3)
OPERATIONS = 2
MAGNITUDE = 7
FILL = (124, 116, 104)  # ImageNet's mean
_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


def vary(image: Image.Image, draws: Sequence[float], side: int, caption: str) -> torch.Tensor:
    """One variant of an image.

    Args:
        image: RGB, of any size.
        draws: at least 9 numbers, uniform in [0, 1).
        side: of the result in pixels.
        caption: the text that the variant will be shown with.

    Returns:
        (3, side, side), uint8.
    """
    numbers = iter(draws)
    varied = crop(image, numbers).resize((side, side), Image.Resampling.BICUBIC)
    if next(numbers) < 0.5 and not _SIDES.search(caption):
        varied = ImageOps.mirror(varied)
    for _ in range(OPERATIONS):
        which, sign = int(next(numbers) * len(RANDAUGMENT)), math.copysign(1, next(numbers) - 0.5)
        varied = list(RANDAUGMENT.values())[which](varied, sign * MAGNITUDE / 10)
    return torch.from_numpy(np.asarray(varied).transpose(2, 0, 1).copy())


def crop(image: Image.Image, numbers: Iterator[float]) -> Image.Image:
    """A random part: area and the logarithm of the aspect ratio are uniform; what is larger than the image is cut."""
    area = image.width * image.height * (SCALE[0] + (SCALE[1] - SCALE[0]) * next(numbers))
    ratio = math.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * next(numbers))
    width = min(image.width, max(1, round(math.sqrt(area * ratio))))
    height = min(image.height, max(1, round(math.sqrt(area / ratio))))
    left = int(next(numbers) * (image.width - width + 1))
    top = int(next(numbers) * (image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _moved(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


# Each takes an RGB image and a level in [-1, 1].
RANDAUGMENT: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, level: image,
    "autocontrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
    "brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(1 + 0.9 * level),
    "sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level),
    "rotate": lambda image, level: image.rotate(30 * level, Image.Resampling.BILINEAR, fillcolor=FILL),
    "shear_x": lambda image, level: _moved(image, 1, 0.3 * level, 0, 0, 1, 0),
    "shear_y": lambda image, level: _moved(image, 1, 0, 0, 0.3 * level, 1, 0),
    "translate_x": lambda image, level: _moved(image, 1, 0, 0.45 * level * image.width, 0, 1, 0),
    "translate_y": lambda image, level: _moved(image, 1, 0, 0, 0, 1, 0.45 * level * image.height),
}
