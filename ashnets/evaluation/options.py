"""The options of an evaluation, and the variants of a model's input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ashnets.configuration import AshNetsConfig


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of every evaluation.

    Attributes:
        splits: the splits to evaluate; the default split if empty.
        sample: size of a random sample of items, or of images for retrieval; 0 uses all.
        candidates: for retrieval, the number of candidates of each query that ITM re-ranks; 0 leaves ITM out. The
            default is the usual number of a benchmark, else 0.
        exhaustive: for retrieval, also rank all pairs by ITM.
        ablate: also evaluate what the spiking branch adds, if the model has one: without it, with the spikes of another
            image, and from spikes alone.
        variants: also evaluate carried states and constant images, not only reset states.
        batch: batch size.
        workers: number of processes that read images; 0 reads them in a thread of this process.
        seed: for the sample, the shuffled order and the choice of examples.
        progress: show a progress bar.
        output: folder for predictions, items and a page of examples; None writes nothing.
    """

    splits: tuple[str, ...] = ()
    sample: int = 0
    candidates: int | None = None
    exhaustive: bool = False
    ablate: bool = False
    variants: bool = True
    batch: int = 64
    workers: int = 0
    seed: int = 0
    progress: bool = True
    output: Path | None = None


DEFAULT = EvaluationOptions()


@dataclass(frozen=True, eq=False)
class Variant:
    """A variant of a model's input.

    Attributes:
        group_size: number of items on one time axis; with 1, each starts from a reset state.
        order: the order of the items; by default, that of the data.
        constant: replace all images by a blank image.
        concrete_only: turn the spiking branch off.
        spikes: ``own``; ``another``: the spiking branch sees another image (:func:`another_image`); ``alone``: F_SNN
            replaces Output, and retrieval uses STUA's projections.
    """

    name: str = "reset"
    group_size: int = 1
    order: np.ndarray | None = None
    constant: bool = False
    concrete_only: bool = False
    spikes: Literal["own", "another", "alone"] = "own"


RESET = Variant()
CONCRETE_ALONE = Variant("concrete alone", concrete_only=True)
ANOTHER = Variant("another image's spikes", spikes="another")
SPIKES_ALONE = Variant("spikes alone", spikes="alone")
ABLATED = (CONCRETE_ALONE, ANOTHER, SPIKES_ALONE)


def ablated(config: AshNetsConfig) -> list[Variant]:
    """The variants that show what the spiking branch adds; an ``snn`` has no trained concrete features."""
    if not config.has_spiking_branch:
        return []
    return [one for one in ABLATED if one is not CONCRETE_ALONE or config.summary_ratio != "snn"]


def another_image(keys: torch.Tensor) -> torch.Tensor:
    """For each of B items another one of the batch, (B,): the first from half the batch on that has other images.

    Neighboring items often share an image, as several questions about one do. An item without such a partner keeps
    itself.

    Args:
        keys: of the images, (B,) or (B, images of an item).
    """
    count = len(keys)
    rows = keys.view(count, -1)  # (B, images)
    order = (torch.arange(count).unsqueeze(1) + torch.arange(count // 2, count // 2 + count)) % count  # (B, B)
    other = (rows[order] != rows.unsqueeze(1)).all(2)  # (B, B)
    place = other.int().argmax(1)  # (B,), the first one
    found = order.gather(1, place.unsqueeze(1)).squeeze(1)  # (B,)
    return torch.where(other.any(1), found, torch.arange(count))


def variants_of(config: AshNetsConfig, items: int, options: EvaluationOptions) -> list[Variant]:
    """The variants to evaluate, ``reset`` first.

    ============================ ==================================================================================
    variant                      images
    ============================ ==================================================================================
    reset                        each from a reset state: the main result, because it depends only on the item
    carry                        φ items on one time axis, in the order of the data: membranes are carried over
    carry, shuffled              the same in a random order: the difference to ``carry`` comes from the neighbors
    constant image               a blank image instead of every image: the result of the text alone
    concrete alone               each from a reset state, without the spiking branch; on request, like the next two
    another image's spikes       the spiking branch sees another image: a model that uses its spikes gets worse
    spikes alone                 without the concrete branch, except for SR: what the spikes carry by themselves
    ============================ ==================================================================================
    """
    spiking, group = config.has_spiking_branch, config.group_size
    found = [RESET]
    if options.variants and spiking and group > 1:
        shuffled = np.random.default_rng(options.seed).permutation(items)
        found += [Variant("carry", group), Variant("carry, shuffled", group, shuffled)]
    if options.variants:
        found.append(Variant("constant image", constant=True))
    if options.ablate:
        found += ablated(config)
    return found
