"""Some images of the bundled gallery, for what is measured of a model where no images are given."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ashnets.processor import AshNetsImageProcessor
from ashnets.zoo.registry import ROOT

FOLDER = ROOT / "gallery" / "images"
COUNT = 16
_AT_ONCE = 4


def gallery_images(side: int, count: int = COUNT) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Images (B, 3, side, side) in [0, 1] from all over the gallery, in batches with their keys for the sampler."""
    files = sorted(FOLDER.iterdir())
    chosen = files[:: max(1, len(files) // count)][:count]
    prepare = AshNetsImageProcessor(side).preprocess
    for start in range(0, len(chosen), _AT_ONCE):
        batch = prepare(chosen[start : start + _AT_ONCE])
        yield batch["pixel_values"], batch["image_keys"].tolist()
