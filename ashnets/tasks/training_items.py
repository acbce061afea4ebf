"""The training items of a task, with the interface of `ashnets.training.images.TrainingImages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ashnets.configuration import AshNetsConfig
from ashnets.data.batches import Share, plan_epoch
from ashnets.data.benchmarks.records import Record
from ashnets.data.similar import mean_similarity, random_groups, similar_groups
from ashnets.errors import ConfigurationError, WeightsError
from ashnets.evaluation.embedding import TaskImages, embed_images
from ashnets.evaluation.options import EvaluationOptions, Variant
from ashnets.files import JsonObject
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import TaskData
from ashnets.tasks.items import ItemBatches
from ashnets.tasks.task import Classification
from ashnets.training.distributed import rank, world_size
from ashnets.training.recipe import SINGLE, Phase, TaskRecipe


class Items:
    """The training items of a run on one rank.

    Raises:
        ConfigurationError: the batch size is not a multiple of φ × devices.
    """

    def __init__(
        self,
        recipe: TaskRecipe,
        config: AshNetsConfig,
        task: Classification,
        data: TaskData,
        records: Sequence[Record],
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
        self._embeds: dict[bool, np.ndarray] = {}  # concrete_only → (items, D) of the model that the run starts from

    def __len__(self) -> int:
        return len(self.records)

    @property
    def train(self) -> Items:
        """The object with the items' ids (``image_ids``), for the fingerprint of a run, and with their number."""
        return self

    def random_groups(self, epoch: int) -> list[np.ndarray]:
        """All items in random order, single or in groups of φ."""
        return random_groups(len(self.records), self.group, self._seed(epoch))

    def similar_groups(
        self, model: AshNetsPreTrainedModel, epoch: int, phase: Phase, device_precision: torch.autocast, progress: bool
    ) -> tuple[list[np.ndarray], JsonObject]:
        """Groups of φ items with similar images, the same on every rank; and values for the log.

        Images are compared by the ITC embeddings of the model that the run starts from: a task trains no ITC
        projection. A pair is the mean of its two images. The first rank embeds and searches.

        Raises:
            WeightsError: the recipe's model has no ITC projections.
        """
        found: list[Any] = [None]
        if rank() == 0:
            embeds = self._embeds.get(phase.concrete_only)
            if embeds is None:
                with device_precision:
                    embeds = self._embeds[phase.concrete_only] = self._embed(model.device, phase, progress)
            seed = self._seed(epoch)
            grouping = similar_groups(embeds, self.group, seed)
            by_chance = random_groups(len(self.records), self.group, seed)
            figures = {
                "neighbors": grouping.index,
                "group_similarity": round(mean_similarity(embeds, grouping.groups), 4),
                "random_group_similarity": round(mean_similarity(embeds, by_chance), 4),
            }
            found = [(grouping.groups, figures)]
        if world_size() > 1:
            torch.distributed.broadcast_object_list(found)
        return found[0]

    def _embed(self, device: torch.device, phase: Phase, progress: bool) -> np.ndarray:
        try:
            model = AshNetsForRetrieval.from_pretrained(self.recipe.model).eval()
            model.to(device)
        except WeightsError as error:
            raise WeightsError(
                f"{error}; grouping: similar compares ITC embeddings: set model to a pre-trained one, or set grouping "
                "to single"
            ) from error
        names = list(dict.fromkeys(name for record in self.records for name in record.images))
        place = {name: number for number, name in enumerate(names)}
        variant = Variant("embedding images", concrete_only=phase.concrete_only)
        images = TaskImages(self.data, names, self.processor)
        embeds = embed_images(model, images, None, variant, EvaluationOptions(progress=progress))[0]  # (images, D)
        of_item = torch.tensor([[place[name] for name in record.images] for record in self.records])
        return functional.normalize(embeds[of_item].mean(1), dim=1).numpy()  # (items, D)

    def _seed(self, epoch: int) -> int:
        return self.recipe.seed * 1_000_003 + epoch

    def plan(self, groups: list[np.ndarray]) -> list[list[Share]]:
        """The micro-batches of an epoch; each has one share for each rank."""
        planned = plan_epoch(groups, self.recipe.batch_size, world_size())
        if self.group > 1:
            return planned
        # a step of a few remaining items would be one group
        return [[Share(share.indices, 1) for share in shares] for shares in planned]

    def batches(self, planned: list[list[Share]], epoch: int) -> ItemBatches:
        """This rank's share of each micro-batch; items are not augmented."""
        mine = [shares[rank()] for shares in planned]
        return ItemBatches(
            self.task, self.data, self.records, mine, self.processor, self.config.max_text_length, learn=True
        )

    def note(self, unreadable: dict[str, str], ahead: int = 1) -> None:
        """Does nothing: an image that cannot be read ends the run."""

    def share_notes(self, ahead: int = 0) -> None:
        """See `note`."""

    def readable_valid(self) -> list[int]:
        """See `note`."""
        return []
