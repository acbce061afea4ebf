r"""Masked visual modeling (MVM) with labels from the spiking response (section III-B.2).

The label of a visual token is the concept with most spikes on it, argmax_j s_j; silent tokens have no label. For each
image one label is drawn, and all tokens with this label are masked together (as in SOHO), so that neighbors do not
reveal it. The loss is the cross-entropy of the label over the M2 concepts.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

SILENT = -100


def spike_labels(counts: torch.Tensor) -> torch.Tensor:
    """(B, N, M2) spike counts to (B, N) labels, ``SILENT`` where no concept spiked."""
    best, label = counts.max(-1)  # (B, N) each
    return label.masked_fill(best <= 0, SILENT)  # (B, N)


def mask_one_label(labels: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Mark all tokens of one drawn label, (B, N); none in an image without spikes.

    Args:
        labels: (B, N), from :func:`spike_labels`.
        uniform: (B,) in [0, 1): selects one of the image's labeled tokens, whose label is masked.
    """
    labeled = labels != SILENT  # (B, N)
    order = labeled.cumsum(1)  # (B, N), number of each labeled token, from 1
    wanted = (uniform.double() * order[:, -1]).long() + 1  # (B,)
    token = ((order == wanted.unsqueeze(1)) & labeled).int().argmax(1, keepdim=True)  # (B, 1)
    return (labels == labels.gather(1, token)) & labeled  # (B, N)


def mvm_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the (P, M2) logits of masked tokens and their (P,) labels; 0 if nothing is masked."""
    if not len(labels):
        return logits.sum() * 0.0
    return F.cross_entropy(logits.float(), labels)  # ()
