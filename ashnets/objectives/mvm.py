r"""Masked visual modeling (MVM) with labels from the spiking response (section III-B.2).

The label of a visual token is the concept that stands out most against its own mean rate,

    argmax_j z_j,   z_j = (r_j − m_j)/√(v_j + ε)

with the statistics of :class:`ashnets.model.collector.RateNorm`. The argmax of the plain counts s_j, which the literal
form of the collector keeps, was tied on 72 % of the tokens, and mostly named the concepts that fire everywhere. Silent
tokens have no label. For each image one label is drawn, and all tokens with this label are masked together (as in
SOHO), so that neighbors do not reveal it. The loss is the cross-entropy of the label over the M2 concepts.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

SILENT = -100


def spike_labels(
    standing_out: torch.Tensor, counts: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (B, N) of the tokens, ``SILENT`` where no concept spiked; and where the largest value was tied, (B, N).

    Args:
        standing_out: z, (B, N, M2); only concepts with a spike on the token can become its label.
        counts: spikes, (B, N, M2).
        uniform: (B,) in [0, 1): of tied concepts, the first one from the column ``uniform``·M2 on, cyclically. So no
            index is preferred.
    """
    concepts = counts.shape[-1]
    z = standing_out.masked_fill(counts <= 0, -torch.inf)  # (B, N, M2)
    start = (uniform.double() * concepts).long().view(-1, 1, 1)  # (B, 1, 1)
    order = (torch.arange(concepts, device=z.device) + start) % concepts  # (B, 1, M2)
    rolled = z.gather(-1, order.expand_as(z))  # (B, N, M2)
    best, place = rolled.max(-1)  # (B, N) each; the first of equal values
    silent = best == -torch.inf  # (B, N)
    label = (place + start.squeeze(-1)) % concepts  # (B, N)
    tied = (rolled == best.unsqueeze(-1)).sum(-1) > 1  # (B, N)
    return label.masked_fill(silent, SILENT), tied & ~silent


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
