"""How an evaluation is done: one set of options, and the variants of what a model is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ashnets.configuration import AshNetsConfig


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of every evaluation.

    Attributes:
        splits: those to measure; the customary one if empty.
        sample: so many items, or images for retrieval, drawn by the seed; 0 takes all.
        candidates: for retrieval, of each query, that ITM orders anew; by default as many as the tests of a benchmark
            take, else 0, which leaves ITM out.
        exhaustive: for retrieval, also let ITM rank all pairs.
        ablate: also measure what the spiking branch adds, where there is one: without it, with the spikes of another
            image, and from spikes alone.
        variants: also measure carried states and constant images; else each image from a reset state alone.
        batch: items in one batch.
        workers: processes that read images; 0 reads them between the batches.
        seed: of the drawn items, the shuffled order and the choice of examples.
        progress: show a bar.
        output: folder for predictions, items and a page of examples; nothing is written without.
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
    """What a model is shown.

    Attributes:
        group_size: items on one time axis; 1 shows each from a reset state.
        order: in which the items are shown; as they stand by default.
        constant: show blank images in the place of all.
        concrete_only: switch the spiking branch off.
        spikes: ``own``; ``another``: give the spiking branch another image (:func:`another_image`); ``alone``: answer
            from the spikes, F_SNN in the place of Output, and retrieve by STUA's projections.
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


def ablated(config: Any) -> list[Variant]:
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
    """The variants that are measured, ``reset`` first.

    ============================ ==================================================================================
    variant                      images
    ============================ ==================================================================================
    reset                        each from a reset state: the main result, since it depends on the item alone
    carry                        φ items on one time axis, in the order of the data: membranes are carried on
    carry, shuffled              the same in a random order: the difference to ``carry`` comes from the neighbors
    constant image               a blank image in place of every image: what the text alone gives this model
    concrete alone               each from a reset state, the spiking branch switched off; on request, as the next two
    another image's spikes       the spiking branch sees another image: a model that uses its spikes gets worse
    spikes alone                 the concrete branch is left out but for SR: what the spikes know by themselves
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
