r"""Image–text contrastive learning (ITC; section III-C.1) against momentum keys and queues (MoCo, ALBEF).

    p^{i2t}_m(I) = softmax_m( f(I)·g'(L_m) / τ ),      ℒ_ITC = ½·E[ H(y^{i2t}, p^{i2t}) + H(y^{t2i}, p^{t2i}) ]

g' and f' are the momentum encoders, and m runs over the batch and the queue. y is uniform over all entries of the same
sample as the query: with several images of one concept, the text of another of them is no negative. With distillation,
y = α·softmax_m(f'(I)·g'(L_m)/τ) + (1 − α)·y; α = 0 by default.
"""

from __future__ import annotations

import torch


def same_sample(ids: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) and (K,) sample ids to (B, K), True for entries of the same sample; ``others`` is ``ids`` by default."""
    return ids.unsqueeze(1) == (ids if others is None else others).unsqueeze(0)  # (B, K)


def soft_cross_entropy(
    logits: torch.Tensor, positive: torch.Tensor, teacher: torch.Tensor | None = None, alpha: float = 0.0
) -> torch.Tensor:
    """H(y, softmax(logits)) for (B, K) logits.

    Args:
        positive: (B, K); y is uniform over the True entries of a row, of which there is at least one.
        teacher: (B, K), logits whose softmax has the weight ``alpha`` in y.
    """
    target = positive.to(logits.dtype)  # (B, K)
    target = target / target.sum(1, keepdim=True)
    if teacher is not None:
        target = alpha * torch.softmax(teacher, dim=1) + (1 - alpha) * target
    return -(target * torch.log_softmax(logits, dim=1)).sum(1).mean()  # ()


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
        image, text: f(I) and g(L), (B, D), unit length.
        tau: τ, a scalar.
        positive: (B, K), True where a pair and a key are the same sample; at least one in each row.
        keys: f'(I_m) and g'(L_m), (K, D) each; ``image`` and ``text`` themselves by default.
        teacher: f'(I) and g'(L) of the B pairs, (B, D), for distillation with weight ``alpha``.
    """
    image_keys, text_keys = keys or (image, text)
    teachers: list[torch.Tensor | None] = [None, None]
    if teacher is not None and alpha:
        with torch.no_grad():
            teachers = [teacher[0] @ text_keys.T / tau, teacher[1] @ image_keys.T / tau]  # (B, K) each
    to_text = soft_cross_entropy(image @ text_keys.T / tau, positive, teachers[0], alpha)
    to_image = soft_cross_entropy(text @ image_keys.T / tau, positive, teachers[1], alpha)
    return (to_text + to_image) / 2  # ()
