"""Spikes of a sequence in pieces, stored as one bit each."""

from __future__ import annotations

import numpy as np
import torch


class PackedSpikes:
    """Pieces of (T, B, C, H, W), stored as bits and returned as floats in channels-last order.

    Args:
        frame: the shape (B, C, H, W) of one step.
    """

    def __init__(self, frame: torch.Size) -> None:
        self.frame = frame
        self._steps: list[int] = []
        self._bits: list[torch.Tensor] = []

    def give_bits(self) -> list[torch.Tensor]:
        """Return the pieces as uint8 and keep none."""
        bits, self._bits = self._bits, []
        return bits

    def take_bits(self, bits: list[torch.Tensor]) -> None:
        """Take back the pieces that :meth:`give_bits` returned."""
        self._bits = bits

    def append(self, spikes: torch.Tensor) -> None:
        """Add a piece, (T', N) rows or (T', B, C, H, W) frames of zeros and ones, N in channels-last order."""
        if spikes.dim() > 2:
            spikes = spikes.permute(0, 1, 3, 4, 2)
        self._steps.append(spikes.shape[0])
        self._bits.append(_pack(spikes != 0))

    def frames(self, piece: int, dtype: torch.dtype) -> torch.Tensor:
        """A piece as (T'·B, C, H, W)."""
        steps = self._steps[piece]
        batch, channels, height, width = self.frame
        flat = _unpack(self._bits[piece], steps * self.frame.numel()).to(dtype)
        return flat.view(steps * batch, height, width, channels).permute(0, 3, 1, 2)


def _pack(fired: torch.Tensor) -> torch.Tensor:
    if fired.device.type == "cpu":
        return torch.from_numpy(np.packbits(fired.numpy()))
    flat = fired.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    places = 2 ** torch.arange(7, -1, -1, device=fired.device, dtype=torch.uint8)
    return (padded * places).sum(-1, dtype=torch.uint8)


def _unpack(bits: torch.Tensor, count: int) -> torch.Tensor:
    if bits.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(bits.numpy(), count=count))
    places = torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
    return ((bits.unsqueeze(-1) >> places) & 1).view(-1)[:count]
