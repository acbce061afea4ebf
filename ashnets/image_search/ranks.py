"""Several processes share one job under torchrun; a single process does not use torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")
# Ranks wait for the slowest: a collection may take days. One that fails is noticed by torchrun, which ends the others.
_PATIENCE = timedelta(days=30)


class Ranks:
    """This process among those started by torchrun; a context manager. Uses gloo on any device.

    Attributes:
        number, count: of this process, from 0, and of all.
    """

    def __init__(self) -> None:
        self.number, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self._group: ProcessGroup | None = None
        self._opened = False

    def __enter__(self) -> Ranks:
        if self.count > 1:
            from torch import distributed

            if not distributed.is_initialized():
                distributed.init_process_group("gloo", timeout=_PATIENCE)
                self._opened = True
            self._group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened:
            from torch import distributed

            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process plans, merges and prints."""
        return self.number == 0

    def agree(self, make: Callable[[], T]) -> T:
        """The result of ``make`` on the first rank, sent to every rank."""
        found: list[Any] = [make() if self.first else None]
        if self.count > 1:
            from torch import distributed

            distributed.broadcast_object_list(found, src=0, group=self._group)
        return found[0]

    def wait(self) -> None:
        """Wait for all ranks."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier(group=self._group)
