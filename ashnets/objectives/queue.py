"""The queues of ITC: the last K pairs of the momentum encoders (MoCo, section 3.2)."""

from __future__ import annotations

import torch
from torch import nn


class EmbeddingQueue(nn.Module):
    """A ring buffer of K image and K text embeddings with their sample ids; new pairs overwrite the oldest.

    Args:
        size: K.
        width: D.
    """

    image: torch.Tensor
    text: torch.Tensor
    samples: torch.Tensor
    written: torch.Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("image", torch.zeros(size, width))
        self.register_buffer("text", torch.zeros(size, width))
        self.register_buffer("samples", torch.zeros(size, dtype=torch.long))
        self.register_buffer("written", torch.zeros((), dtype=torch.long))  # pairs so far, overwritten ones included

    @torch.no_grad()
    def enqueue(self, image: torch.Tensor, text: torch.Tensor, samples: torch.Tensor) -> None:
        """Write B pairs, (B, D), (B, D) and (B,), over the oldest; of more than K pairs, the last K stay."""
        size, before = len(self.samples), int(self.written)
        kept = slice(max(0, len(samples) - size), None)
        places = torch.arange(before, before + len(samples), device=samples.device)[kept] % size
        self.image[places] = image[kept].to(self.image.dtype)
        self.text[places] = text[kept].to(self.text.dtype)
        self.samples[places] = samples[kept]
        self.written += len(samples)

    def entries(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (n, D), texts (n, D) and sample ids (n,) of the n ≤ K stored pairs."""
        filled = min(int(self.written), len(self.samples))
        return self.image[:filled], self.text[:filled], self.samples[:filled]
