r"""Image–text contrastive learning (ITC; section III-C.1) inside a batch.

    p^{i2t}_m(I) = softmax_m( f(I)·g(L_m) / τ ),      ℒ_ITC = ½·E[ H(y^{i2t}, p^{i2t}) + H(y^{t2i}, p^{t2i}) ]

y spreads evenly over all entries that are the same sample as the query: with several pictures of one concept in a
batch, a sibling's text is no negative.
"""

from __future__ import annotations

import torch


def same_sample(ids: torch.Tensor) -> torch.Tensor:
    """(B,) sample ids to (B, B), True where two entries are the same sample."""
    return ids.unsqueeze(0) == ids.unsqueeze(1)


def soft_cross_entropy(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """H(y, softmax(logits)) for (B, K) logits, y uniform over the True entries of ``positive`` (B, K)."""
    target = positive.to(logits.dtype)
    target = target / target.sum(1, keepdim=True)
    return -(target * torch.log_softmax(logits, dim=1)).sum(1).mean()


def itc_loss(image: torch.Tensor, text: torch.Tensor, tau: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """ℒ_ITC of B pairs.

    Args:
        image, text: (B, D) unit embeddings.
        tau: τ, a scalar.
        positive: (B, B), True where picture i and text j are the same sample; the diagonal at least.
    """
    logits = image @ text.T / tau
    return (soft_cross_entropy(logits, positive) + soft_cross_entropy(logits.T, positive.T)) / 2
