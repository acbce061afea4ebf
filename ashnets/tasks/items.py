"""Items of a task in batches; each worker process reads and tokenizes its own items."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ashnets.data.batches import Share
from ashnets.data.benchmarks.records import Record
from ashnets.data.loading import Batches
from ashnets.data.vocabulary import tokenize
from ashnets.files import JsonObject
from ashnets.model.outputs import ClassifierOutput
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

    @property
    def paired(self) -> bool:
        """Whether an item has two images."""
        return self.pixel_values.dim() == 5

    def order(self) -> torch.Tensor:
        """(n,), the images as they stand on their time axes, as indices of the images item by item.

        Of each group of pairs, the left images are one sequence and the right ones another. Both images of a pair on
        one axis would share one response, by which they could not be told apart.
        """
        items = torch.arange(self.image_keys.numel())
        if not self.paired:
            return items
        return items.unflatten(0, (-1, self.group_size, 2)).transpose(1, 2).flatten()

    def shown(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Images (n, 3, S, S) in their `order`; their keys (n,); and the number of images on one time axis."""
        order = self.order()
        return self.pixel_values.flatten(0, -4)[order], self.image_keys.flatten()[order], self.group_size

    def to(self, device: torch.device) -> ItemBatch:
        """The same batch with its tensors on ``device``, except image_keys, which the sampler reads as numbers."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ItemBatch:
        """The same batch in pinned memory; a DataLoader calls this method of a batch that is not a tensor."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, move: Callable[[torch.Tensor], torch.Tensor]) -> ItemBatch:
        names = ("pixel_values", "input_ids", "attention_mask", *(() if self.labels is None else ("labels",)))
        moved: JsonObject = {name: move(getattr(self, name)) for name in names}
        return dataclasses.replace(self, **moved)


def answer(head: Any, batch: ItemBatch, **options: Any) -> ClassifierOutput:
    """The output of a task's head for a batch.

    A head shows both images of a pair on one time axis. In groups of pairs the images are therefore encoded here, in
    the `ItemBatch.order` of the batch.

    Args:
        options: of the head's ``forward``.
    """
    if batch.group_size == 1 or not batch.paired:
        return head(
            pixel_values=batch.pixel_values,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=batch.labels,
            image_keys=batch.image_keys,
            group_size=batch.group_size,
            **options,
        )
    order = batch.order()  # (2·B,)
    texts = order // 2
    pixels, keys, group = batch.shown()
    out = head.ashnets(pixels, batch.input_ids[texts], batch.attention_mask[texts], keys, group_size=group, **options)
    features = out.pooler_output[order.argsort()].unflatten(0, (-1, 2)).flatten(1)  # (2·B, M1) to (B, 2·M1)
    logits = head.classifier(features)  # (B, 2)
    loss = None if batch.labels is None else functional.cross_entropy(logits, batch.labels)
    return ClassifierOutput(logits=logits, loss=loss, visual=out.visual, attentions=out.attentions)


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
