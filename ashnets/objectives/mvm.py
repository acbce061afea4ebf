r"""Masked visual modeling (MVM) with labels from the spiking response (section III-B.2).

The label of a visual token is the concept that spiked most on it, argmax_j s_j; silent tokens have none. One label of
each image is drawn and all its tokens are masked together (as SOHO does), so that a neighbor cannot give it away;
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


def mask_one_label(labels: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Mark all tokens that share one drawn label, (B, N); nothing in an image that is silent throughout.

    Args:
        labels: (B, N), as :func:`spike_labels` gives them.
        uniform: (B,) in [0, 1): which of an image's tokens that have a label decides.
    """
    spoken = labels != SILENT
    order = spoken.cumsum(1)  # of the tokens that have a label, from 1
    wanted = (uniform.double() * order[:, -1]).long() + 1
    token = ((order == wanted.unsqueeze(1)) & spoken).int().argmax(1, keepdim=True)
    return (labels == labels.gather(1, token)) & spoken


def mvm_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the (P, M2) logits of masked tokens and their (P,) labels; 0 where nothing is masked."""
    if not len(labels):
        return logits.sum() * 0.0
    return F.cross_entropy(logits.float(), labels)
