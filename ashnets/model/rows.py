"""Sequences of any shape and memory format as (T, N) rows, the form of the kernels, without a copy."""

from __future__ import annotations

import torch

from ashnets.errors import InputError


class Rows:
    """The order of the neurons of a sequence (T, ...) in memory.

    Args:
        x: (T, ...), dense. Channels-last images keep their format; any other irregular format is read in logical order.

    Raises:
        InputError: the sequence has no step.
    """

    def __init__(self, x: torch.Tensor) -> None:
        if x.dim() < 1 or x.shape[0] < 1:
            raise InputError(f"a sequence of shape {tuple(x.shape)}: the first axis is time; give at least one step")
        self.shape = x.shape
        self.order = list(range(1, x.dim()))
        self.plain = True  # nothing to permute
        if not x.is_contiguous():
            strides = x.stride()
            order = sorted(self.order, key=lambda axis: -strides[axis])
            if x.permute(0, *order).is_contiguous():
                self.order, self.plain = order, False

    def steps(self, x: torch.Tensor) -> torch.Tensor:
        """(T, ...) to (T, N)."""
        if self.plain and x.dim() == 2:  # a view takes as long as the forward pass of a thousand neurons
            return x
        return (x if self.plain else x.permute(0, *self.order)).reshape(x.shape[0], -1)

    def neurons(self, v: torch.Tensor) -> torch.Tensor:
        """(...) to (N,). Raises InputError if the shape is not that of a step: kernels would write past the end."""
        if v.shape != self.shape[1:]:
            raise InputError(
                f"{tuple(v.shape)} values for the neurons {tuple(self.shape[1:])} of a step: the shapes must be equal"
            )
        if v.dim() == 1:
            return v
        return (v if self.plain else v.permute([axis - 1 for axis in self.order])).reshape(-1)

    def like_steps(self, rows: torch.Tensor) -> torch.Tensor:
        """(T, N) to (T, ...)."""
        if self.plain:
            return rows if len(self.shape) == 2 else rows.view(rows.shape[0], *self.shape[1:])
        back = [0, *(self.order.index(axis) + 1 for axis in range(1, len(self.shape)))]
        return rows.view(rows.shape[0], *(self.shape[axis] for axis in self.order)).permute(back)

    def like_neurons(self, rows: torch.Tensor) -> torch.Tensor:
        """(N,) to (...)."""
        if self.plain:
            return rows if len(self.shape) == 2 else rows.view(self.shape[1:])
        back = [self.order.index(axis) for axis in range(1, len(self.shape))]
        return rows.view([self.shape[axis] for axis in self.order]).permute(back)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Expand one value for each channel of (T, B, C, ...), (C,), to one for each neuron, (N,)."""
        axes = [1, -1, *[1] * (len(self.shape) - 3)]
        return self.neurons(values.view(axes).expand(self.shape[1:]))

    def total(self, rows: torch.Tensor) -> torch.Tensor:
        """Sum (N,) over the neurons of each channel of (T, B, C, ...): (C,), float64."""
        found = self.like_neurons(rows)
        return found.sum([0, *range(2, found.dim())], dtype=torch.float64)
