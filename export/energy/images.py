"""Choose and read the images of a report, from a folder or from a corpus with captions."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ashnets.data.folders import as_given, by_suffix, listed, printable, walk
from ashnets.data.images import is_image
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.errors import ConfigurationError, DataError
from ashnets.model.sampling import image_key
from ashnets.processor import AshNetsImageProcessor
from ashnets.zoo.gallery_images import Images

log = logging.getLogger("ashnets.data")


def read_images(
    side: int,
    images: Path | None = None,
    corpus: Path | None = None,
    splits: Sequence[str] = (),
    limit: int = 64,
    seed: int = 0,
) -> Images:
    """Read images as input of a model with ``side`` × ``side`` pixels.

    Args:
        images: a folder of images, sub-folders included; captions are not needed.
        corpus: images with captions, see :func:`ashnets.data.sources.opening.open_source`.
        splits: of the corpus; all by default.
        limit: number of images at most, drawn with ``seed``.

    Raises:
        ConfigurationError: both or neither of ``images`` and ``corpus``, or splits without a corpus.
        DataError, InputError: no images, or one that cannot be decoded.
    """
    if (images is None) == (corpus is None):
        raise ConfigurationError("give a folder of images (--images) or images with captions (--corpus), not both")
    if images is not None:
        if splits:
            raise ConfigurationError(f"--split {' '.join(splits)} belongs to --corpus; a folder of images has none")
        return _from_folder(images, side, limit, seed)
    source = open_source(os.fspath(corpus), hold_out=0)  # type: ignore[arg-type]
    chosen = list(splits) or source.splits
    pairs = Pairs(source, chosen, side)
    indices = _draw(len(pairs), limit, seed)
    return Images(
        pixels=pairs.on_white(indices),
        image_keys=[image_key(pairs.image_ids[i]) for i in indices],
        source=f"{Path(os.fspath(corpus)).name}, {', '.join(chosen)}: {_how_many(indices, len(pairs), seed)}",  # type: ignore[arg-type]
    )


def _from_folder(folder: Path, side: int, limit: int, seed: int) -> Images:
    if not folder.is_dir():
        raise DataError(f"{printable(as_given(folder))} is not a folder: give --images a folder of images")
    found = walk(folder)
    for fault in found.faults(is_image).values():
        log.warning("left out: %s", fault)
    files = sorted(folder / path for path in found.files if is_image(path))
    if not files:
        others = f" (it contains {listed(by_suffix(found.files))})" if found.files else ""
        raise DataError(f"{printable(folder)} contains no images (.png, .jpg, .webp and others){others}")
    indices = _draw(len(files), limit, seed)
    batch = AshNetsImageProcessor(side).preprocess([files[i] for i in indices])
    return Images(
        pixels=batch["pixel_values"],
        image_keys=batch["image_keys"].tolist(),
        source=f"folder {printable(folder.name)}: {_how_many(indices, len(files), seed)}",
    )


def _draw(count: int, limit: int, seed: int) -> list[int]:
    if seed < 0:
        raise ConfigurationError(f"seed={seed} must not be negative")
    return sorted(np.random.default_rng(seed).permutation(count)[:limit].tolist())


def _how_many(indices: list[int], count: int, seed: int) -> str:
    if len(indices) == count:
        return f"all {count} images"
    return f"{len(indices)} of {count} images, drawn by seed {seed}"
