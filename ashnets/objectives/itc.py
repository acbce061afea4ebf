r"""Image–text contrastive learning (ITC; section III-C.1) against momentum keys and queues (MoCo, ALBEF).

    p^{i2t}_m(I) = softmax_m( f(I)·g'(L_m) / τ ),      ℒ_ITC = ½·E[ H(y^{i2t}, p^{i2t}) + H(y^{t2i}, p^{t2i}) ]

g' and f' are the momentum encoders, and m runs over the batch and the queue. y spreads evenly over all entries that are
the same sample as the query: with several images of one concept, a sibling's text is no negative. With distillation,
y = α·softmax_m(f'(I)·g'(L_m)/τ) + (1 − α)·y; α = 0 by default.
"""

from __future__ import annotations

import torch


def same_sample(ids: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) and (K,) sample ids to (B, K), True where two entries are the same sample; ``others`` are ``ids``."""
    return ids.unsqueeze(1) == (ids if others is None else others).unsqueeze(0)


def soft_cross_entropy(
    logits: torch.Tensor, positive: torch.Tensor, teacher: torch.Tensor | None = None, alpha: float = 0.0
) -> torch.Tensor:
    """H(y, softmax(logits)) for (B, K) logits.

    Args:
        positive: (B, K), y is uniform over its True entries; one in each row at least.
        teacher: (B, K), logits whose softmax takes the share ``alpha`` of y.
    """
    target = positive.to(logits.dtype)
    target = target / target.sum(1, keepdim=True)
    if teacher is not None:
        target = alpha * torch.softmax(teacher, dim=1) + (1 - alpha) * target
    return -(target * torch.log_softmax(logits, dim=1)).sum(1).mean()


def itc_loss(
    image: torch.Tensor,
    text: torch.Tensor,
    tau: torch.Tensor,
    positive: torch.Tensor,
    keys: tuple[torch.Tensor, torch.Tensor] | None = None,
    teacher: tuple[torch.Tensor, torch.Tensor] | None = None,
    alpha: float = 0.0,
) -> torch.Tensor:
    """ℒ_ITC of B pairs.

    Args:
        image, text: f(I) and g(L), (B, D), of length 1.
        tau: τ, a scalar.
        positive: (B, K), True where a pair and a key are the same sample; one in each row at least.
        keys: f'(I_m) and g'(L_m), (K, D) each; ``image`` and ``text`` themselves by default.
        teacher: f'(I) and g'(L) of the B pairs, (B, D), for distillation with weight ``alpha``.
    """
    image_keys, text_keys = keys or (image, text)
    teachers: list[torch.Tensor | None] = [None, None]
    if teacher is not None and alpha:
        with torch.no_grad():
            teachers = [teacher[0] @ text_keys.T / tau, teacher[1] @ image_keys.T / tau]
    to_text = soft_cross_entropy(image @ text_keys.T / tau, positive, teachers[0], alpha)
    to_image = soft_cross_entropy(text @ image_keys.T / tau, positive, teachers[1], alpha)
    return (to_text + to_image) / 2
