r"""Image–text matching (ITM) with hard negatives.

For each pair, one negative text and one negative image are drawn with probability softmax(similarity/τ) from the batch
entries of other samples. ℒ_ITM is the cross-entropy of "matching" over the three pairs.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def hard_negatives(
    similarity: torch.Tensor, positive: torch.Tensor, tau: float | torch.Tensor, uniform: torch.Tensor
) -> torch.Tensor:
    """Draw a negative column for each row.

    Args:
        similarity: (B, K), ITC similarity.
        positive: (B, K), True where the column is the row's own sample; never drawn.
        tau: τ of the softmax.
        uniform: (B,) in [0, 1), the position of a row's draw in the cumulative distribution.

    Returns:
        Column indices, (B,); −1 for a row whose columns are all positive.
    """
    scores = (similarity.double() / tau).masked_fill(positive, float("-inf"))  # (B, K)
    none = positive.all(1)  # (B,)
    weights = torch.softmax(scores.masked_fill(none.unsqueeze(1), 0.0), dim=1)  # (B, K)
    cumulative = weights.cumsum(1)  # (B, K)
    # The first column whose cumulative weight is above the draw: a column of weight 0 is never the first.
    draw = uniform.double().unsqueeze(1) * cumulative[:, -1:]  # (B, 1)
    drawn = torch.searchsorted(cumulative, draw, right=True).squeeze(1).clamp_max(cumulative.shape[1] - 1)  # (B,)
    return drawn.masked_fill(none, -1)  # (B,)


def itm_loss(logits: torch.Tensor, matching: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (P, 2) logits and (P,) labels: 0 not matching, 1 matching."""
    return F.cross_entropy(logits.float(), matching)  # ()
