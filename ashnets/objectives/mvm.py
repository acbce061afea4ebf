r"""Masked visual modelling (MVM) with labels from the spiking response (section III-B.2).

The label of a visual token is the concept that spiked most on it, argmax_j s_j; silent tokens have none. One label of
each picture is drawn and all its tokens are masked together (as SOHO does), so that a neighbour cannot give it away;
the loss is the cross-entropy of the label over the M2 concepts.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

SILENT = -100


def spike_labels(counts: torch.Tensor) -> torch.Tensor:
    """(B, N, M2) spike counts to (B, N) labels, ``SILENT`` where no concept spiked."""
    best, label = counts.max(-1)
    return label.masked_fill(best <= 0, SILENT)


def mask_one_label(labels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Mark all tokens that share one drawn label, (B, N); nothing in a picture that is silent throughout."""
    spoken = labels != SILENT
    weights = torch.where(spoken.any(1, keepdim=True), spoken.float(), torch.ones_like(labels, dtype=torch.float))
    token = torch.multinomial(weights, 1, generator=generator)  # (B, 1)
    return (labels == labels.gather(1, token)) & spoken


def mvm_loss(logits: torch.Tensor, labels: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (B, N, M2) logits on the masked tokens; 0 where nothing is masked."""
    if not masked.any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits[masked].float(), labels[masked])
