r"""Image–text matching (ITM) with hard negatives.

For each pair one negative text and one negative image are drawn with probability softmax(similarity/τ) over the
entries of the batch that are another sample; ℒ_ITM is the cross-entropy of "matching" over the three pairs.
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
        uniform: (B,) in [0, 1), where in the cumulative distribution a row's draw lies.

    Returns:
        (B,), columns; −1 for a row whose columns are all positive.
    """
    scores = (similarity.double() / tau).masked_fill(positive, float("-inf"))
    none = positive.all(1)
    weights = torch.softmax(scores.masked_fill(none.unsqueeze(1), 0.0), dim=1)
    reach = weights.cumsum(1)
    # The first column whose reach lies beyond the draw: a column of weight 0 reaches no further than the one before.
    aim = uniform.double().unsqueeze(1) * reach[:, -1:]
    drawn = torch.searchsorted(reach, aim, right=True).squeeze(1).clamp_max(reach.shape[1] - 1)
    return drawn.masked_fill(none, -1)


def itm_loss(logits: torch.Tensor, matching: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (P, 2) logits and (P,) labels: 0 not matching, 1 matching."""
    return F.cross_entropy(logits.float(), matching)
