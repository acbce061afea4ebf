"""Predictions of a model for the items of a task, from reset states or with φ items on one time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from tqdm import tqdm

from ashnets.data.batches import Share
from ashnets.data.benchmarks.records import Record
from ashnets.data.loading import Batches, One, load_epoch
from ashnets.errors import InputError
from ashnets.evaluation.options import DEFAULT, RESET, EvaluationOptions, Variant, another_image
from ashnets.model.ashnets import VisualOptions, VisualSemanticModule
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import TaskData
from ashnets.tasks.items import ItemBatches, answer
from ashnets.tasks.task import Classification


def shares_of(order: Sequence[int] | np.ndarray, group_size: int, batch: int) -> list[Share]:
    """Items in their order, in groups of ``group_size``; the last group may be smaller."""
    order = np.asarray(order, int)
    size = max(1, batch // group_size) * group_size
    whole = len(order) // group_size * group_size
    shares = [Share(order[start : min(start + size, whole)], group_size) for start in range(0, whole, size)]
    if whole < len(order):
        shares.append(Share(order[whole:], len(order) - whole))
    return shares


def shown(batches: Batches[One], workers: int, title: str, progress: bool) -> Iterator[tuple[Share, One]]:
    """Each share with its batch, with a progress bar. Raises DataError if an image cannot be read."""
    loaded = load_epoch(batches, 0, workers, pin=False)
    bar = tqdm(loaded, title, len(batches), leave=False, unit="batch", disable=not progress or None)
    return zip(batches.shares, bar, strict=True)


@dataclass(frozen=True)
class Questions:
    """Items of a task: the records of a data set, and the processor that reads them."""

    task: Classification
    data: TaskData
    records: Sequence[Record]
    processor: AshNetsProcessor


def branches_of(
    variant: Variant, model: AshNetsPreTrainedModel, pixel_values: torch.Tensor, keys: torch.Tensor
) -> VisualOptions:
    """Options of a model's forward that show it what ``variant`` asks for.

    Args:
        pixel_values: (B, 3, H, W), or (B, 2, 3, H, W) where an item has two images.
        keys: of the images, (B,) or (B, 2).
    """
    found: VisualOptions = {"concrete_only": True} if variant.concrete_only else {}
    if variant.spikes == "alone":
        found["tokens"] = "abstract"
    elif variant.spikes == "another":
        other = another_image(keys)
        pixels = pixel_values[other].flatten(0, -4).to(model.device)  # (B or 2·B, 3, H, W)
        vision = cast(VisualSemanticModule, model.ashnets.vision)
        found["spikes"] = vision.sample(pixels, keys[other].flatten())  # (T, B or 2·B, 3, H, W)
    return found


@torch.inference_mode()
def predict(
    model: AshNetsPreTrainedModel, asked: Questions, variant: Variant = RESET, options: EvaluationOptions = DEFAULT
) -> torch.Tensor:
    """Logits (n, labels), float32 on the CPU, in the order of the records.

    Args:
        model: a head in evaluation mode.

    Raises:
        DataError: an image cannot be read.
    """
    task, records = asked.task, asked.records
    order = np.arange(len(records)) if variant.order is None else variant.order
    shares = shares_of(order, variant.group_size, options.batch)
    length = model.config.max_text_length
    batches = ItemBatches(task, asked.data, records, shares, asked.processor, length, constant=variant.constant)
    found = torch.empty(len(records), len(task.labels))
    for share, one in shown(batches, options.workers, variant.name, options.progress):
        branches = branches_of(variant, model, one.pixel_values, one.image_keys)
        logits = answer(model, one.to(model.device), **branches).logits  # (B, labels)
        assert logits is not None
        found[torch.as_tensor(share.indices)] = logits.float().cpu()
    if not bool(found.isfinite().all()):
        raise InputError(
            f"{variant.name}: the model's logits contain NaN or infinity, which would count as the first answer: its "
            "weights or an image are damaged; `ashnets verify` checks the model"
        )
    return found


def predicted_labels(
    model: AshNetsPreTrainedModel, asked: Questions, variant: Variant = RESET, options: EvaluationOptions = DEFAULT
) -> list[str]:
    """The label with the largest logit of each item; the arguments are those of `predict`."""
    return [asked.task.labels[int(i)] for i in predict(model, asked, variant, options).argmax(1)]
