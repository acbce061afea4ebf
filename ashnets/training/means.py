"""Figures of a run, averaged over passes and ranks."""

from __future__ import annotations

from typing import Any

import torch

from ashnets.training.distributed import mean_over_ranks


class Means:
    """Figures averaged over the passes since the last flush, and over all of an epoch.

    They stay on their device, unread, until they are flushed.

    Attributes:
        sums: name → sum and number of passes; a checkpoint inside an epoch keeps them.
        last: what the last flush gave.
    """

    def __init__(self, sums: dict[str, Any] | None = None) -> None:
        self.sums: dict[str, Any] = dict(sums or {})
        self.last: dict[str, float] = {}
        self._window: list[dict[str, torch.Tensor]] = []

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Take the figures of one pass: the same names at each, on every rank."""
        self._window.append({name: value.float() for name, value in values.items()})

    def flush(self) -> dict[str, float]:
        """Means over ranks and over the passes since the last flush."""
        names = list(self._window[0])
        block = torch.stack([torch.stack([values[name] for name in names]) for values in self._window])
        block = mean_over_ranks(block.double())
        for name, column in zip(names, block.T.tolist(), strict=True):
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + sum(column), count + len(column)]
        self.last = dict(zip(names, block.mean(0).tolist(), strict=True))
        self._window = []
        return {name: round(value, 6) for name, value in self.last.items()}

    def means(self) -> dict[str, float]:
        """Over the epoch."""
        return {name: round(total / count, 5) for name, (total, count) in self.sums.items()}
