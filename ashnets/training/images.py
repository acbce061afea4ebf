"""The images of a run: which can be read, their groups and order in an epoch, and which rank gets which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase

from ashnets.configuration import AshNetsConfig
from ashnets.data.batches import Share, plan_epoch
from ashnets.data.pairs import Pairs
from ashnets.data.similar import mean_similarity, random_groups, similar_groups
from ashnets.data.sources.opening import Source
from ashnets.errors import ConfigurationError, DataError
from ashnets.evaluation.embedding import embed_images
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.files import JsonObject
from ashnets.model.ashnets import VisualSemanticModule
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.sampling import image_key
from ashnets.training.distributed import gather, rank, world_size
from ashnets.training.loader import EpochBatches
from ashnets.training.recipe import Phase, Recipe


class TrainingImages:
    """Training and validation pairs of a run on one rank.

    Args:
        warn: called for each image that is skipped, with a message, the image's name, and in how many steps a
            checkpoint will record it.

    Attributes:
        skipped: unreadable images, name → reason, the same on every rank; epochs are planned without them.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: AshNetsConfig,
        source: Source,
        tokenizer: PreTrainedTokenizerBase,
        warn: Callable[[str, str, int], None],
    ) -> None:
        group = config.group_size
        if recipe.batch_size % (group * world_size()):
            raise ConfigurationError(
                f"batch_size={recipe.batch_size} must be a multiple of φ × devices = {group} × {world_size()}: a "
                "group never spans devices"
            )
        self.recipe, self.config, self.tokenizer, self.warn = recipe, config, tokenizer, warn
        self.train = Pairs(source, recipe.train, config.image_size)
        self.valid = Pairs(source, [recipe.valid], config.image_size)
        self.skipped: dict[str, str] = {}
        self._noted: dict[str, str] = {}  # on this rank, and not yet shared

    def seeds(self, epoch: int) -> list[int]:
        """A seed for each pass of an epoch."""
        first = self.recipe.seed * 1_000_003 + epoch * self.recipe.passes
        return [first + number for number in range(self.recipe.passes)]

    def random_groups(self, epoch: int) -> list[np.ndarray]:
        """The readable images in random groups of φ, pass after pass."""
        usable, size = self._usable(), self.config.group_size
        return [usable[g] for seed in self.seeds(epoch) for g in random_groups(len(usable), size, seed)]

    def similar_groups(
        self, model: AshNetsForPreTraining, epoch: int, phase: Phase, device_precision: torch.autocast, progress: bool
    ) -> tuple[list[np.ndarray], JsonObject]:
        """Retrieve(Pic, φ) by ITC similarity, the same on every rank; and values for the log.

        Each rank embeds its part of the images; the first one searches.
        """
        usable, size = self._usable(), self.config.group_size
        shown = ReadableOrWhite(self.train)
        mine = np.array_split(usable, world_size())[rank()]
        with device_precision:
            embeds, _ = embed_images(
                model,
                shown,
                mine,
                Variant("embedding images", concrete_only=phase.concrete_only),
                EvaluationOptions(progress=progress, workers=self.recipe.workers),
            )
        self.note(shown.unreadable())
        self.share_notes(ahead=1)
        embeddings = gather(embeds.to(model.device)).cpu().numpy()
        readable = np.isin(usable, self._usable())
        usable, embeddings = usable[readable], embeddings[readable]
        found: list[Any] = [None, None]
        if rank() == 0:
            seeds = self.seeds(epoch)
            groupings = [similar_groups(embeddings, size, seed) for seed in seeds]
            by_chance = random_groups(len(usable), size, seeds[0])
            found = [
                [group for grouping in groupings for group in grouping.groups],
                {
                    "neighbors": groupings[0].index,
                    "group_similarity": round(mean_similarity(embeddings, groupings[0].groups), 4),
                    "random_group_similarity": round(mean_similarity(embeddings, by_chance), 4),
                },
            ]
        if world_size() > 1:
            # other builds may find other neighbors: all ranks take the first one's groups
            torch.distributed.broadcast_object_list(found)
        return [usable[group] for group in found[0]], found[1]

    def plan(self, groups: list[np.ndarray]) -> list[list[Share]]:
        """The micro-batches of an epoch, each with one share per rank; none spans two passes."""
        passes: dict[int, list[np.ndarray]] = {}
        for number, group in zip(passes_of(groups), groups, strict=True):
            passes.setdefault(number, []).append(group)
        return [step for own in passes.values() for step in plan_epoch(own, self.recipe.batch_size, world_size())]

    def batches(self, planned: list[list[Share]], epoch: int) -> EpochBatches:
        """This rank's batches: its shares of the micro-batches."""
        mine, length = [shares[rank()] for shares in planned], self.config.max_text_length
        passes = passes_of([np.concatenate([share.indices for share in shares]) for shares in planned])
        return EpochBatches(self.train, mine, self.recipe, epoch, self.tokenizer, length, passes)

    def spikes(self, vision: VisualSemanticModule, images: int, batch: int, device: torch.device) -> SpikeBatches:
        """P_binary of randomly drawn training images, the same on every rank; unreadable images are skipped."""
        order = np.random.default_rng(self.recipe.seed).permutation(self._usable())[:images]
        self.note(_unreadable(self.train, order))
        self.share_notes(ahead=1)
        order = order[np.isin(order, self._usable())]
        return SpikeBatches(self.train, np.split(order, range(batch, len(order), batch)), vision, device)

    def note(self, unreadable: dict[str, str], ahead: int = 1) -> None:
        """Record unreadable images and warn about each once; they are skipped after `share_notes`.

        Args:
            ahead: see ``warn``.

        Raises:
            DataError: there are more than the recipe allows.
        """
        for name, reason in unreadable.items():
            if name not in self.skipped and name not in self._noted:
                self._noted[name] = reason
                self.warn(f"left out: {reason}", name, ahead)
        everything = self.skipped | self._noted
        if len(everything) > self.recipe.max_skipped:
            raise DataError(
                f"{len(everything)} images cannot be read, more than max_skipped={self.recipe.max_skipped}: "
                f"{'; '.join(list(everything.values())[:3])} `ashnets data check` lists them all."
            )

    def share_notes(self, ahead: int = 0) -> None:
        """Skip the noted images of every rank from now on. All ranks take part.

        Ranks that skipped other images would plan other epochs, and one of them would wait in a collective alone.
        """
        if world_size() > 1:
            self.note(dict(gather_object(list(self._noted.items()))), ahead)
        self.skipped |= self._noted
        self._noted.clear()

    def readable_valid(self) -> list[int]:
        """The readable validation images, or ``valid_images`` of them; each is tried once."""
        count, wanted = len(self.valid), self.recipe.valid_images
        indices: Sequence[int] = range(count)
        if 0 < wanted < count:
            indices = sorted(np.random.default_rng(self.recipe.seed).choice(count, wanted, replace=False).tolist())
        unreadable = _unreadable(self.valid, indices)
        self.note(unreadable)
        return [index for index in indices if self.valid.image_ids[index] not in unreadable]

    def _usable(self) -> np.ndarray:
        return np.array([i for i, name in enumerate(self.train.image_ids) if name not in self.skipped])


def passes_of(parts: Iterable[np.ndarray]) -> list[int]:
    """The pass, from 0, that each part of an epoch belongs to: a pass ends where an image occurs again."""
    found: list[int] = []
    seen: set[int] = set()
    for part in parts:
        if again := int(part[0]) in seen:
            seen.clear()
        seen.update(part.tolist())
        found.append(found[-1] + again if found else 0)
    return found


def _unreadable(pairs: Pairs, indices: Iterable[int]) -> dict[str, str]:
    """Name → reason, of the images that cannot be read."""
    found = {}
    for index in indices:
        try:
            pairs.decode(index)
        except DataError as error:
            found[pairs.image_ids[index]] = str(error)
    return found


class ReadableOrWhite:
    """Images of which those that cannot be read are white, and noted, also by the workers of a loader."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs, self.side, self.image_ids = pairs, pairs.side, pairs.image_ids
        self.white = torch.zeros(len(pairs), dtype=torch.bool).share_memory_()

    def unreadable(self) -> dict[str, str]:
        """Name → reason, of the images that have been white."""
        lost = self.white.nonzero().flatten().tolist()
        reasons = _unreadable(self.pairs, lost)
        return {
            name: reasons.get(name, f"image {name!r} could not be read once")
            for name in map(self.image_ids.__getitem__, lost)
        }

    def __len__(self) -> int:
        return len(self.pairs)

    def on_white(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """See `Pairs.on_white`."""
        return torch.cat([self._one(int(index)) for index in indices])  # (B, 3, S, S)

    def _one(self, index: int) -> torch.Tensor:
        try:
            return self.pairs.on_white([index])
        except DataError:
            self.white[index] = True
            return torch.ones(1, 3, self.side, self.side)


@dataclass
class SpikeBatches:
    """P_binary, (T, B, 3, H, W), of batches of images; read again, with the same result, in each iteration."""

    pairs: Pairs
    batches: list[np.ndarray]
    vision: VisualSemanticModule
    device: torch.device

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self.batches:
            keys = [image_key(self.pairs.image_ids[i]) for i in batch]
            yield self.vision.sample(self.pairs.on_white(batch).to(self.device), keys)

    def __len__(self) -> int:
        return len(self.batches)
