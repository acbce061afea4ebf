"""Input images: those of the bundled gallery, so that spikes are as frequent and as clustered as in real use."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from ashnets.configuration import AshNetsConfig
from ashnets.data.corpus import open_gallery
from ashnets.model.sampling import probabilistic_sampling
from ashnets.processor import AshNetsImageProcessor

GALLERY = Path(__file__).resolve().parents[2] / "zoo" / "gallery"


@cache
def images(count: int, side: int) -> torch.Tensor:
    """(count, 3, side, side) in [0, 1]."""
    files = [GALLERY / row["file_name"] for row in list(open_gallery(GALLERY))[:count]]
    return AshNetsImageProcessor(side)(files)["pixel_values"]


def spikes_of(config: AshNetsConfig, count: int, steps: int, seed: int, side: int | None = None) -> torch.Tensor:
    """P_binary, (steps, count, 3, side, side); the default side is that of the configuration."""
    return probabilistic_sampling(images(count, side or config.image_size), range(count), steps, seed)
