"""Items of a task in batches: each worker of each rank reads and tokenizes its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ashnets.configuration import AshNetsConfig
from ashnets.data.batches import Share, plan_epoch
from ashnets.data.similar import random_groups
from ashnets.errors import ConfigurationError
from ashnets.model.sampling import image_key
from ashnets.processor import AshNetsProcessor
from ashnets.retrieval.embedding import tokenize
from ashnets.tasks.data import TaskData
from ashnets.tasks.task import Classification
from ashnets.training.distributed import rank, world_size
from ashnets.training.loader import Batches, load_epoch
from ashnets.training.recipe import SINGLE, TaskRecipe

GRAY = 0.5


@dataclass
class ItemBatch:
    """B items.

    Attributes:
        pixel_values: (B, 3, S, S) in [0, 1]; pairs (B, 2, 3, S, S).
        image_keys: (B,) or (B, 2), ids for the sampler.
        input_ids, attention_mask: (B, L).
        labels: what the head's loss takes; None where nothing is learned.
        group_size: items on one time axis.
        image_ids: names of the images.
        skipped: empty; a batch of pre-training has names here.
    """

    pixel_values: torch.Tensor
    image_keys: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor | None
    group_size: int
    image_ids: list[str]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    def shown(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Images (n, 3, S, S), both of each pair; their keys (n,); and how many lie on one time axis."""
        return self.pixel_values.flatten(0, -4), self.image_keys.flatten(), self.inputs()["group_size"]

    def to(self, device: torch.device) -> ItemBatch:
        """The same batch with its tensors on ``device``; image_keys stay, the sampler reads them as numbers."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ItemBatch:
        """The same batch in pinned memory: what a DataLoader asks of a batch that is no tensor."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, move: Callable[[torch.Tensor], torch.Tensor]) -> ItemBatch:
        names = ("pixel_values", "input_ids", "attention_mask", *(() if self.labels is None else ("labels",)))
        moved: dict[str, Any] = {name: move(getattr(self, name)) for name in names}
        return dataclasses.replace(self, **moved)

    def inputs(self) -> dict[str, Any]:
        """Keywords of a head's ``forward``; the time axis of a pair's group has both its images."""
        images = 1 if self.pixel_values.dim() == 4 else 2
        return {
            "pixel_values": self.pixel_values,
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "labels": self.labels,
            "image_keys": self.image_keys,
            "group_size": 1 if self.group_size == 1 else self.group_size * images,
        }


class ItemBatches(Batches):
    """Items of a task.

    Args:
        learn: make labels.
        constant: show blank images in the place of all.
    """

    def __init__(
        self,
        task: Classification,
        data: TaskData,
        records: Sequence[Any],
        shares: Sequence[Share],
        processor: AshNetsProcessor,
        max_length: int,
        *,
        learn: bool = False,
        constant: bool = False,
    ) -> None:
        self.task, self.data, self.records, self.shares = task, data, records, shares
        self.processor, self.max_length, self.learn, self.constant = processor, max_length, learn, constant

    def read(self, number: int) -> ItemBatch:
        """Pass ``number``. Raises DataError or InputError if an image cannot be read."""
        share = self.shares[number]
        records = [self.records[int(i)] for i in share.indices]
        tokens = tokenize(self.processor.tokenizer, [self.task.text(r) for r in records], self.max_length)
        # images that are all alike must also spike alike
        keys = [[0 if self.constant else image_key(name) for name in record.images] for record in records]
        paired = len(keys[0]) == 2
        return ItemBatch(
            pixel_values=self._pixels([record.images for record in records], paired),
            image_keys=torch.tensor(keys) if paired else torch.tensor(keys).flatten(),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            labels=self.task.targets(records) if self.learn else None,
            group_size=share.group_size,
            image_ids=[name for record in records for name in record.images],
        )

    def _pixels(self, names: list[tuple[str, ...]], paired: bool) -> torch.Tensor:
        if self.constant:
            side = self.processor.image_processor.image_size
            shape = (len(names), 2, 3, side, side) if paired else (len(names), 3, side, side)
            return torch.full(shape, GRAY)
        opened = [[self.data.open_image(name) for name in of_item] for of_item in names]
        images: Any = opened if paired else [of_item[0] for of_item in opened]
        # the ids are not used: content keys of each image would cost a hash of its pixels
        ids = [0] * sum(map(len, names))
        return self.processor.image_processor.preprocess(images, ids)["pixel_values"]


class ImageBatches(Batches):
    """Images by their names, without an item: (B, 3, S, S) of each share, and their keys for the sampler."""

    def __init__(
        self, data: TaskData, names: Sequence[str], shares: Sequence[Share], processor: AshNetsProcessor
    ) -> None:
        self.data, self.names, self.shares, self.processor = data, names, shares, processor

    def read(self, number: int) -> tuple[torch.Tensor, list[int]]:
        """Share ``number``. Raises DataError or InputError if an image cannot be read."""
        names = [self.names[int(i)] for i in self.shares[number].indices]
        keys = [image_key(name) for name in names]
        images = [self.data.open_image(name) for name in names]
        return self.processor.image_processor.preprocess(images, keys)["pixel_values"], keys


def images_at_rest(
    data: TaskData, names: Sequence[str], processor: AshNetsProcessor, batch: int = 32, workers: int = 0
) -> Iterator[tuple[torch.Tensor, list[int]]]:
    """Images (B, 3, S, S) in the order of ``names``, in batches with their keys, read by ``workers`` processes.

    Raises:
        DataError: one cannot be read.
    """
    order = np.arange(len(names))
    shares = [Share(order[start : start + batch], 1) for start in range(0, len(names), batch)]
    return load_epoch(ImageBatches(data, names, shares, processor), 0, workers, pin=False)


class Items:
    """The training items of a run on one rank, as a run of pre-training knows its images.

    Raises:
        ConfigurationError: a batch that does not fit φ and the devices.
    """

    def __init__(
        self,
        recipe: TaskRecipe,
        config: AshNetsConfig,
        task: Classification,
        data: TaskData,
        records: Sequence[Any],
        processor: AshNetsProcessor,
    ) -> None:
        self.recipe, self.config, self.task, self.data = recipe, config, task, data
        self.records, self.processor = records, processor
        self.group = 1 if recipe.phases[0].grouping == SINGLE else config.group_size
        if recipe.batch_size % (self.group * world_size()):
            raise ConfigurationError(
                f"batch_size={recipe.batch_size} must be a multiple of φ × devices = {self.group} × {world_size()}"
            )
        self.image_ids = [f"{record.id} {' '.join(record.images)} {task.text(record)}" for record in records]
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.records)

    @property
    def train(self) -> Items:
        """What a run takes its fingerprint (``image_ids``) and its size of."""
        return self

    def random_groups(self, epoch: int) -> list[np.ndarray]:
        """All items in random order, one by one or in groups of φ."""
        return random_groups(len(self.records), self.group, self.recipe.seed * 1_000_003 + epoch)

    def plan(self, groups: list[np.ndarray]) -> list[list[Share]]:
        """The passes of an epoch, each a share a rank."""
        return plan_epoch(groups, self.recipe.batch_size, world_size())

    def batches(self, planned: list[list[Share]], epoch: int) -> ItemBatches:
        """This rank's batches of the passes; the items of an epoch are shown as they are."""
        mine = [shares[rank()] for shares in planned]
        return ItemBatches(
            self.task, self.data, self.records, mine, self.processor, self.config.max_text_length, learn=True
        )

    def note(self, unreadable: dict[str, str], ahead: int = 1) -> None:
        """Nothing is left out: an image that cannot be read has ended the run."""

    def share_notes(self, ahead: int = 0) -> None:
        """See `note`."""

    def readable_valid(self) -> list[int]:
        """See `note`."""
        return []
