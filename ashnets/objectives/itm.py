r"""Image–text matching (ITM) with hard negatives.

For each pair one negative text and one negative picture are drawn with probability softmax(similarity/τ) over the
entries of the batch that are another sample; ℒ_ITM is the cross-entropy of "matching" over the three pairs.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def hard_negatives(
    similarity: torch.Tensor, positive: torch.Tensor, tau: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw a negative column for each row.

    Args:
        similarity: (B, K), ITC similarity.
        positive: (B, K), True where the column is the row's own sample; never drawn.
        tau: τ of the softmax.
        generator: of the draw.

    Returns:
        (B,), columns; −1 for a row whose columns are all positive.
    """
    weights = torch.softmax((similarity.float() / tau).masked_fill(positive, float("-inf")), dim=1)
    none = positive.all(1)
    weights = torch.where(none.unsqueeze(1), torch.ones_like(weights), weights)
    # A similarity far below the best one underflows to probability 0; positives are 0 exactly.
    drawn = torch.multinomial(weights, 1, generator=generator).squeeze(1)
    return drawn.masked_fill(none, -1)


def itm_loss(logits: torch.Tensor, matching: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (P, 2) logits and (P,) labels: 0 not matching, 1 matching."""
    return F.cross_entropy(logits.float(), matching)
