"""Batches of an epoch: each worker of each rank reads, augments and tokenizes only its own images and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ashnets.data.augment import augment, on_background
from ashnets.data.batches import Share
from ashnets.data.draws import draw
from ashnets.data.images import load_image
from ashnets.data.loading import Batches, load_epoch
from ashnets.data.pairs import Pairs
from ashnets.data.photographs import vary
from ashnets.data.vocabulary import tokenize
from ashnets.errors import DataError
from ashnets.model.sampling import image_key
from ashnets.training.pretrain import Batch
from ashnets.training.recipe import Recipe

_VIEWS = 1 << 32  # number of the first fixed variant in the place of an epoch
CALIBRATED = 1024  # training images that running statistics are gathered from


class EpochBatches(Batches):
    """Pairs for pre-training. No batch depends on the batches before it."""

    def __init__(
        self,
        pairs: Pairs,
        shares: list[Share],
        recipe: Recipe,
        epoch: int,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        passes: Sequence[int] = (),
    ) -> None:
        """``passes``: the pass of the epoch that each micro-batch belongs to; by default the first."""
        self.pairs = pairs
        self.shares = shares
        self.recipe = recipe
        self.epoch = epoch
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.passes = passes

    def read(self, number: int) -> Batch:
        """Micro-batch ``number``. Raises DataError if none of its images can be read."""
        share, pairs, recipe = self.shares[number], self.pairs, self.recipe
        photographs = recipe.augmentation == "photographs"
        indices, images, skipped = read_group_by_group(pairs, share, pairs.open if photographs else pairs.decode)
        keys = [image_key(pairs.image_ids[i]) for i in indices]
        drawing = self.epoch * recipe.passes + (self.passes[number] if self.passes else 0)
        draws = draw(recipe.seed, drawing, keys, self.max_length)
        captions = [
            chosen_caption(pairs.captions_of(int(i)), float(bare), float(which), recipe.bare_name)
            for i, (bare, which) in zip(indices, draws.caption, strict=True)
        ]
        variants, said = draws.augment, captions
        if recipe.views:
            variants = draw(recipe.seed, _VIEWS + drawing % recipe.views, keys, self.max_length).augment
            # a variant that every caption fits
            said = [" ".join(pairs.captions_of(int(i))) for i in indices]
        if photographs:
            varied = zip(images, variants.tolist(), said, strict=True)
            pixels = torch.stack([vary(load_image(image), own, pairs.side, text) for image, own, text in varied]) / 255
        elif recipe.augmentation == "drawings":
            pixels = augment(torch.stack(images) / 255, variants)
        else:
            pixels = on_background(torch.stack(images) / 255, torch.ones(1, 3, 1, 1))
        tokens = tokenize(self.tokenizer, captions, self.max_length)
        return Batch(
            pixel_values=pixels,
            image_keys=torch.tensor(keys),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            special=tokens["special_tokens_mask"].bool(),
            samples=pairs.samples[torch.as_tensor(indices)],
            draws=draws,
            group_size=share.group_size,
            image_ids=[pairs.image_ids[i] for i in indices],
            skipped=skipped,
        )


def read_group_by_group(
    pairs: Pairs, share: Share, read_one: Callable[[int], Any]
) -> tuple[np.ndarray, list[Any], dict[str, str]]:
    """Read a share's images; an unreadable one is replaced by the nearest readable image of its group.

    Args:
        read_one: from an index of ``pairs`` to an image in any form; raises DataError if it cannot be read.

    Returns:
        The indices that were read, their B images, and name → reason of those that were not.

    Raises:
        DataError: no image of the share can be read.
    """
    read: dict[int, Any] = {}
    skipped = {}
    for place, index in enumerate(share.indices):
        try:
            read[place] = read_one(int(index))
        except DataError as error:
            skipped[pairs.image_ids[index]] = str(error)
    if not read:
        raise DataError(f"none of {len(share.indices)} images could be read: {next(iter(skipped.values()))}")

    def stand_in(place: int) -> int:
        group = place // share.group_size
        return min(read, key=lambda other: (other // share.group_size != group, abs(other - place), other))

    places = [place if place in read else stand_in(place) for place in range(len(share.indices))]
    return share.indices[places], [read[place] for place in places], skipped


def chosen_caption(captions: list[str], bare: float, which: float, bare_name: float | None) -> str:
    """The first caption where ``bare`` < ``bare_name``, else one of the others; if ``bare_name`` is None, any caption.

    Both draws are uniform in [0, 1).
    """
    others = captions if bare_name is None else captions[1:]
    if not others or (bare_name is not None and bare < bare_name):
        return captions[0]
    return others[int(which * len(others))]


def calibration_batches(images: Any, count: int, workers: int, pin: bool) -> Iterator[Any]:
    """Training batches in random groups, the same at each call, with about ``count`` images, or all images if fewer.

    Running statistics are gathered from them with equal weight per batch, so batches below half the size are omitted.

    Args:
        images: of a run; unreadable images are recorded there.
        workers, pin: as for `load_epoch`.
    """
    groups = images.random_groups(0)
    planned = images.plan(groups[: -(-count // len(groups[0]))])
    sizes = [sum(len(share.indices) for share in shares) for shares in planned]
    whole = [shares for shares, size in zip(planned, sizes, strict=True) if 2 * size >= max(sizes)]
    for batch in load_epoch(images.batches(whole, 0), 0, workers, pin):
        images.note(batch.skipped)
        yield batch
