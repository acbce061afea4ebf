"""Batches that a thread or worker processes read ahead, while the batch before is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
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
    """The batches from number ``first`` on, in order, read ahead; they do not depend on ``workers``.

    Args:
        batches: `Batches` of any kind.
        workers: processes that read; with 0 a thread of this process reads one batch ahead.
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
    for batch in loader if workers else _ahead(loader):
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _ahead(items: Iterable[One]) -> Iterator[One]:
    """The items; a thread prepares each one while the one before it is used.

    Decoders and torch release the interpreter's lock, so on a single core this costs no more than reading between the
    steps.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as thread:
        threads = torch.get_num_threads()
        thread.submit(_on_one_core).result()
        torch.set_num_threads(threads)  # the number that threads start with; it was the reader's
        coming = thread.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # it is not ``end``


def _on_one_core() -> None:
    """Torch in this thread: a second pool of its threads would take the cores from the caller's."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes the number at its first question
