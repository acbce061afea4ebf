"""Images on which a model is counted, and a sample of the bundled gallery, which is used where no images are given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ashnets.processor import AshNetsImageProcessor
from ashnets.zoo.registry import ROOT

FOLDER = ROOT / "gallery" / "images"
COUNT = 16
_AT_ONCE = 4


@dataclass(frozen=True)
class Images:
    """Images on which a model is counted.

    Attributes:
        pixels: (B, 3, S, S) in [0, 1].
        image_keys: for the sampler, which draws the spikes of an image by its key.
        source: a sentence for the report: what they are, how many of how many, and how they were chosen.
    """

    pixels: torch.Tensor
    image_keys: list[int]
    source: str

    def __len__(self) -> int:
        return len(self.pixels)


def gallery_images(side: int, count: int = COUNT) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Images (B, 3, side, side) in [0, 1], spread over the gallery, in batches with their keys for the sampler."""
    files = sorted(FOLDER.iterdir())
    chosen = files[:: max(1, len(files) // count)][:count]
    prepare = AshNetsImageProcessor(side).preprocess
    for start in range(0, len(chosen), _AT_ONCE):
        batch = prepare(chosen[start : start + _AT_ONCE])
        yield batch["pixel_values"], batch["image_keys"].tolist()


def gallery_sentences() -> list[str]:
    """One sentence for each image of the gallery: its first caption that is more than the bare name."""
    lines = (FOLDER.parent / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    captions = [json.loads(line)["captions"] for line in lines]
    return [one[min(1, len(one) - 1)] for one in captions]
