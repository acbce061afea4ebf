"""The training items of a task, with the interface of `ashnets.training.images.TrainingImages`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ashnets.configuration import AshNetsConfig
from ashnets.data.batches import Share, plan_epoch
from ashnets.data.benchmarks.records import Record
from ashnets.data.similar import random_groups
from ashnets.errors import ConfigurationError
from ashnets.processor import AshNetsProcessor
from ashnets.tasks.data import TaskData
from ashnets.tasks.items import ItemBatches
from ashnets.tasks.task import Classification
from ashnets.training.distributed import rank, world_size
from ashnets.training.recipe import SINGLE, TaskRecipe


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

    def __len__(self) -> int:
        return len(self.records)

    @property
    def train(self) -> Items:
        """The object with the items' ids (``image_ids``), for the fingerprint of a run, and with their number."""
        return self

    def random_groups(self, epoch: int) -> list[np.ndarray]:
        """All items in random order, single or in groups of φ."""
        return random_groups(len(self.records), self.group, self.recipe.seed * 1_000_003 + epoch)

    def plan(self, groups: list[np.ndarray]) -> list[list[Share]]:
        """The micro-batches of an epoch; each has one share for each rank."""
        return plan_epoch(groups, self.recipe.batch_size, world_size())

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
