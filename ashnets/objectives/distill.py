r"""Distillation of the concrete tokens into the spiking ones. Not one of the paper's objectives.

    ℒ_distill = mean over images and tokens of 1 − cos(F_SNN, F_CNN)

F_CNN is a constant: the loss trains the spiking encoder and C, not the concrete encoder or SR. FitNets (Romero et al.,
2015) learn the features of a teacher in this way, and so do spiking encoders in SpikeCLIP (Lv et al., 2025). Here, the
teacher is the concrete branch of the same model.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def distillation_loss(abstract: torch.Tensor, concrete: torch.Tensor) -> torch.Tensor:
    """ℒ_distill of F_SNN (eq. 6) and F_CNN (eq. 4), (B, N, M1) each.

    A token without any spike has no direction (F_SNN = 0 in the literal form of eq. 6): its loss is 1.
    """
    cosines = F.cosine_similarity(abstract.float(), concrete.detach().float(), dim=-1, eps=1e-2)  # (B, N)
    return 1 - cosines.mean()  # ()
