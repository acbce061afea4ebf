r"""Semantic collector and summary ratio (eq. 6, 7, 8).

    F_SNN  = Σ_j C_j·s_j / Σ_j s_j        a convex combination of the columns of C ∈ R^{M1×M2} at every token
    SR     = σ(φ(F_CNN))                  φ: one linear unit for each token
    Output = SR·F_SNN + F_CNN

The paper prints the denominator of eq. 6 as a sum over N; a combination of C's columns needs the sum over M2, for each
token. A token without any spike has F_SNN = 0. The rows of Table XI replace the last line: ``ann`` F_CNN, ``fixed``
F_SNN + F_CNN, ``snn`` F_SNN.
"""

from __future__ import annotations

import torch
from torch import nn

from ashnets.configuration import AshNetsConfig

EPSILON = 1e-6


class SemanticCollector(nn.Module):
    """C: (B, N, M2) spike counts to F_SNN (B, N, M1)."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.concepts = nn.Parameter(torch.empty(config.hidden_size, config.num_concepts))  # C, (M1, M2)

    def forward(self, response: torch.Tensor) -> torch.Tensor:
        total = response.sum(-1, keepdim=True)  # (B, N, 1)
        weights = response / total.clamp_min(EPSILON)  # (B, N, M2)
        return weights.to(self.concepts.dtype) @ self.concepts.T  # (B, N, M1)


class SpikeRate(nn.Module):
    """The "without collector" row of Table XIV: the response itself, (B, N, M1), divided by the sum of its token."""

    def forward(self, response: torch.Tensor) -> torch.Tensor:
        return response / response.sum(-1, keepdim=True).clamp_min(EPSILON)  # (B, N, M1)


class SummaryRatio(nn.Module):
    """SR and the sum of eq. 8, by ``config.summary_ratio``.

    Shape: F_CNN and F_SNN (B, N, M1) to Output (B, N, M1) and SR (B, N, 1). F_SNN is None for ``ann``.
    """

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.variant = config.summary_ratio
        if self.variant == "trainable":
            self.phi = nn.Linear(config.hidden_size, 1)  # φ

    def forward(self, concrete: torch.Tensor, abstract: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if self.variant == "ann" or abstract is None:
            return concrete, concrete.new_zeros((*concrete.shape[:2], 1))  # (B, N, M1), (B, N, 1)
        if self.variant == "trainable":
            ratio = torch.sigmoid(self.phi(concrete))  # (B, N, 1)
        else:
            ratio = concrete.new_ones((*concrete.shape[:2], 1))  # (B, N, 1)
        if self.variant == "snn":
            return abstract, ratio
        return ratio * abstract + concrete, ratio  # (B, N, M1), (B, N, 1)
