"""Answers of a model to the items of a task, each image from a reset state or φ of them on one time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ashnets.data.batches import Share
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import TaskData
from ashnets.tasks.items import ItemBatches
from ashnets.tasks.task import Classification
from ashnets.training.loader import Batches, load_epoch


def shares_of(order: np.ndarray, group_size: int, batch: int) -> list[Share]:
    """Items in their order, in groups of ``group_size``; those left over are a shorter group at the end."""
    size = max(1, batch // group_size) * group_size
    whole = len(order) // group_size * group_size
    shares = [Share(order[start : min(start + size, whole)], group_size) for start in range(0, whole, size)]
    if whole < len(order):
        shares.append(Share(order[whole:], len(order) - whole))
    return shares


def shown(batches: Batches, workers: int, title: str, progress: bool) -> Iterator[tuple[Share, Any]]:
    """Each share with its batch, under a bar of progress. Raises DataError where an image cannot be read."""
    loaded = load_epoch(batches, 0, workers, pin=False)
    bar = tqdm(loaded, title, len(batches), leave=False, unit="batch", disable=not progress or None)
    return zip(batches.shares, bar, strict=True)


@torch.inference_mode()
def predict(
    model: Any,
    task: Classification,
    data: TaskData,
    records: Sequence[Any],
    processor: AshNetsProcessor,
    *,
    order: np.ndarray | None = None,
    group_size: int = 1,
    constant: bool = False,
    batch: int = 64,
    workers: int = 0,
    progress: bool = True,
    title: str = "answering",
    **options: Any,
) -> torch.Tensor:
    """Logits (n, labels), float32 on the CPU, in the order of ``records`` whatever the order of showing.

    Args:
        model: a head in evaluation mode.
        order: in which the items are shown; as they stand by default.
        group_size: items on one time axis; 1 shows each from a reset state.
        constant: show blank images in the place of all.
        options: as in ``AshNetsModel.forward``.

    Raises:
        DataError: an image cannot be read.
    """
    order = np.arange(len(records)) if order is None else order
    shares = shares_of(order, group_size, batch)
    batches = ItemBatches(task, data, records, shares, processor, model.config.max_text_length, constant=constant)
    found = torch.empty(len(records), len(task.labels))
    for share, one in shown(batches, workers, title, progress):
        logits = model(**one.to(model.device).inputs(), **options).logits
        found[torch.as_tensor(share.indices)] = logits.float().cpu()
    return found


def predicted_labels(task: Classification, logits: torch.Tensor) -> list[str]:
    """The label of the greatest logit of each item."""
    return [task.labels[int(i)] for i in logits.argmax(1)]
