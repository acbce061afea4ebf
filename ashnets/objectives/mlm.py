r"""Masked language modeling (MLM): 15 % of the tokens; of these 80 % become [MASK], 10 % a random token, 10 % stay.

ℒ_MLM = E[ −log p(w_masked | text, image) ]  over positive pairs
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

IGNORED = -100
RATE = 0.15  # share of the tokens to predict


def mask_tokens(
    input_ids: torch.Tensor,
    special: torch.Tensor,
    mask_id: int,
    vocab_size: int,
    uniform: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask (B, L) token ids: `RATE` of the tokens, but at least one in each text that has a maskable token.

    Args:
        special: (B, L), True where a token may not be masked ([CLS], [SEP], [PAD]).
        mask_id: id of [MASK].
        vocab_size: random token ids are drawn below it.
        uniform: (B, 3, ≥ L) in [0, 1): selects the tokens, the action for each, and the random token.

    Returns:
        Masked ids (B, L), and labels (B, L) with ``IGNORED`` where nothing is predicted.
    """
    choice, action, token = uniform[:, :, : input_ids.shape[1]].unbind(1)  # (B, L)
    score = choice.masked_fill(special, 2.0)  # (B, L)
    chosen = score < RATE  # (B, L)
    # Captions can have two tokens: without this line, most would have nothing to predict.
    chosen |= (score == score.min(1, keepdim=True).values) & ~special
    labels = torch.where(chosen, input_ids, IGNORED)
    random_ids = (token.double() * vocab_size).long()
    masked = torch.where(chosen & (action < 0.8), mask_id, input_ids)
    masked = torch.where(chosen & (action >= 0.8) & (action < 0.9), random_ids, masked)
    return masked, labels  # (B, L), (B, L)


def mlm_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (B, L, vocabulary) logits where labels (B, L) are not ``IGNORED``; 0 if all are."""
    if not (labels != IGNORED).any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)  # ()
