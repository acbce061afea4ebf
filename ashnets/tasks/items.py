"""Items of a task in batches; each worker process reads and tokenizes its own items."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ashnets.data.batches import Share
from ashnets.data.benchmarks.records import Record
from ashnets.data.loading import Batches
from ashnets.data.vocabulary import tokenize
from ashnets.model.sampling import image_key
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import TaskData
from ashnets.tasks.task import Classification

GRAY = 0.5


@dataclass
class ItemBatch:
    """B items.

    Attributes:
        pixel_values: (B, 3, S, S) in [0, 1]; pairs (B, 2, 3, S, S).
        image_keys: (B,) or (B, 2), keys for the sampler.
        input_ids, attention_mask: (B, L).
        labels: targets for the head's loss; None in evaluation.
        group_size: number of items on one time axis.
        image_ids: names of the images.
        skipped: always empty; in pre-training it names the images that were left out.
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
        """Images (n, 3, S, S), two for each pair; their keys (n,); and the number of images on one time axis."""
        return self.pixel_values.flatten(0, -4), self.image_keys.flatten(), self.inputs()["group_size"]

    def to(self, device: torch.device) -> ItemBatch:
        """The same batch with its tensors on ``device``, except image_keys, which the sampler reads as numbers."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ItemBatch:
        """The same batch in pinned memory; a DataLoader calls this method of a batch that is not a tensor."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, move: Callable[[torch.Tensor], torch.Tensor]) -> ItemBatch:
        names = ("pixel_values", "input_ids", "attention_mask", *(() if self.labels is None else ("labels",)))
        moved: dict[str, Any] = {name: move(getattr(self, name)) for name in names}
        return dataclasses.replace(self, **moved)

    def inputs(self) -> dict[str, Any]:
        """Arguments of a head's ``forward``; a group of pairs has both images of each pair on its time axis."""
        images = 1 if self.pixel_values.dim() == 4 else 2
        return {
            "pixel_values": self.pixel_values,
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "labels": self.labels,
            "image_keys": self.image_keys,
            "group_size": 1 if self.group_size == 1 else self.group_size * images,
        }


class ItemBatches(Batches[ItemBatch]):
    """Items of a task.

    Args:
        learn: add labels.
        constant: replace all images by a blank image.
    """

    def __init__(
        self,
        task: Classification,
        data: TaskData,
        records: Sequence[Record],
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
        """Batch ``number``. Raises DataError or InputError if an image cannot be read."""
        share = self.shares[number]
        records = [self.records[int(i)] for i in share.indices]
        tokens = tokenize(self.processor.tokenizer, [self.task.text(r) for r in records], self.max_length)
        # equal images must have equal spikes
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
        # these ids are not used; without ids, the pixels of each image would be hashed
        ids = [0] * sum(map(len, names))
        return self.processor.image_processor.preprocess(images, ids)["pixel_values"]
