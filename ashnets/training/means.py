"""Logged values of a run, averaged over micro-batches and ranks."""

from __future__ import annotations

import torch

from ashnets.training.distributed import mean_over_ranks


class Means:
    """Values averaged over the micro-batches since the last flush, and over the whole epoch.

    They stay on their device until they are flushed, so that no step waits for a copy.

    Attributes:
        sums: name → sum and number of micro-batches; a checkpoint inside an epoch contains them.
        last: the means of the last flush.
    """

    def __init__(self, sums: dict[str, list[float]] | None = None) -> None:
        self.sums: dict[str, list[float]] = dict(sums or {})
        self.last: dict[str, float] = {}
        self._window: list[dict[str, torch.Tensor]] = []

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Add the values of one micro-batch; the names must be the same each time and on every rank."""
        self._window.append({name: value.float() for name, value in values.items()})

    def flush(self) -> dict[str, float]:
        """Means over ranks and over the micro-batches since the last flush."""
        names = list(self._window[0])
        block = torch.stack([torch.stack([values[name] for name in names]) for values in self._window])
        block = mean_over_ranks(block.double())
        for name, column in zip(names, block.T.tolist(), strict=True):
            total, count = self.sums.get(name, [0.0, 0])
            self.sums[name] = [total + sum(column), count + len(column)]
        self.last = dict(zip(names, block.mean(0).tolist(), strict=True))
        self._window = []
        return {name: round(value, 6) for name, value in self.last.items()}

    def means(self) -> dict[str, float]:
        """Means over the epoch."""
        return {name: round(total / count, 5) for name, (total, count) in self.sums.items()}
