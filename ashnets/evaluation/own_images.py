"""Captioned images of any source as a data set: a corpus, parquet files or a folder."""

from __future__ import annotations

import os
from collections.abc import Sized
from pathlib import Path

import numpy as np

from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.errors import DataError
from ashnets.files import JsonObject

IMAGES = "images"
ALL = "all"  # as a split: the images of all splits together


class OwnImages:
    """Captioned images; a text is the bare name of an image, or its first caption.

    Args:
        folder: in any form that `open_source` accepts.
        record: a model's training record; the same validation images are held out as in the training.

    Raises:
        DataError: there is no data, or it is damaged.
    """

    name = IMAGES

    def __init__(self, folder: str | os.PathLike, record: JsonObject | None = None) -> None:
        self.folder = Path(folder)
        share = (record or {}).get("hold_out")
        self.source = open_source(folder) if share is None else open_source(folder, share)

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def default_split(self) -> str:
        """``test``, or ``valid`` if there is none."""
        return "test" if "test" in self.source.splits else "valid"

    def require(self, split: str) -> None:
        """Raise DataError if there is no such split; ``all`` means all of them."""
        try:
            for name in self._parts(split):
                self.source.split(name)
        except DataError as error:
            raise DataError(f"{str(error).removesuffix('.')}; {ALL} takes the images of all splits together.") from None

    def pairs(self, split: str, side: int) -> Pairs:
        """The images of a split, or of ``all`` splits. Raises DataError if there is none."""
        return Pairs(self.source, self._parts(split), side)

    def _parts(self, split: str) -> list[str]:
        splits = self.source.splits
        return splits if split == ALL and ALL not in splits else [split]


def sampled(pairs: Sized, sample: int, seed: int = 0) -> list[int] | None:
    """Indices of a random sample, the same for every model; None, for all, if ``sample`` is 0 or too large."""
    if not 0 < sample < len(pairs):
        return None
    return sorted(np.random.default_rng(seed).permutation(len(pairs))[:sample].tolist())
