"""Batches that worker processes read ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from ashnets.data.batches import Share
from ashnets.errors import AshNetsError, DataError

One = TypeVar("One")


class Batches(Dataset, Generic[One]):
    """``batches[i]`` is a rank's share of micro-batch i, by ``read``, or why it cannot be read."""

    shares: Sequence[Share]

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, number: int) -> One | DataError:
        try:
            return self.read(number)
        except AshNetsError as error:
            # raised where the batches are taken: raised in a worker it would come with its traceback
            return error if isinstance(error, DataError) else DataError(str(error))

    def read(self, number: int) -> One:
        """Micro-batch ``number``. Raises DataError if it cannot be read."""
        raise NotImplementedError


def load_epoch(batches: Batches[One], first: int, workers: int, pin: bool) -> Iterator[One]:
    """The batches from number ``first`` on, in order, read ahead by ``workers`` processes.

    Args:
        batches: `Batches` of any kind.
        pin: put them into pinned memory, from where a GPU copies while it computes.

    Raises:
        DataError: when a batch is taken of which no image can be read.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch
