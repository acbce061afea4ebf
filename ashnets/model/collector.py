r"""Semantic collector and summary ratio (eq. 6, 7, 8).

    F_SNN  = LN(C·z),   z_j = (r_j − m_j)/√(v_j + ε)     r: spikes per step; m, v: mean and variance of each concept
    F_CNN  = LN(V(I))
    SR     = σ(φ(F_CNN))                                 φ: one linear unit for each token
    Output = SR·F_SNN + F_CNN

This is ``abstract_scale = "normalized"``, our reading. ``"literal"`` is the paper's text:

    F_SNN  = Σ_j C_j·s_j / Σ_j s_j        a convex combination of the columns of C ∈ R^{M1×M2} at every token
    F_CNN  = V(I)

(The paper prints the denominator of eq. 6 as a sum over N; a combination of C's columns needs the sum over M2, for each
token. A token without any spike then has F_SNN = 0.) The literal form was measured and does nothing: a token averages
some 80 of 256 columns, so F_SNN is shorter than F_CNN by a factor of 15 to 45 and mostly the same at every token, and
the model ignores it. Centered by its own mean rate, a concept counts where it stands out; with both norms, the two
summands of eq. 8 have the same scale for any M2, T, φ and readout.

The rows of Table XI replace the last line: ``ann`` F_CNN, ``fixed`` F_SNN + F_CNN, ``snn`` F_SNN.
"""

from __future__ import annotations

import torch
from torch import nn

from ashnets.configuration import AshNetsConfig

EPSILON = 1e-6


class RateNorm(nn.BatchNorm1d):
    """z of (B, N, R) spikes per step: each concept minus its mean rate, over its standard deviation.

    The statistics are those of batch normalization without γ and β, over B and N: of the batch in training, running
    ones in inference.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, concepts: int) -> None:
        super().__init__(concepts, affine=False)

    def forward(self, rates: torch.Tensor) -> torch.Tensor:
        # in the type of the statistics, which a model of half precision keeps in its own
        rates = rates.to(self.running_var.dtype)
        return self.normalize(rates.flatten(0, 1)).view_as(rates)  # (B, N, R)

    def normalize(self, rates: torch.Tensor) -> torch.Tensor:
        """(B·N, R) to z; statistics over several ranks replace this method."""
        return super().forward(rates)  # (B·N, R)

    @torch.no_grad()
    def standing_out(self, rates: torch.Tensor) -> torch.Tensor:
        """z by the running statistics, in training too; nothing is updated."""
        return (rates - self.running_mean) * torch.rsqrt(self.running_var + self.eps)  # (B, N, R)


def rate_norm(config: AshNetsConfig) -> RateNorm | None:
    """The norm of the response, or none in the literal form."""
    return None if config.abstract_scale == "literal" else RateNorm(config.response_size)


def feature_norm(config: AshNetsConfig) -> nn.Module:
    """The norm of a summand of eq. 8: LN over M1, or none in the literal form."""
    if config.abstract_scale == "literal":
        return nn.Identity()
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def shares(response: torch.Tensor) -> torch.Tensor:
    """The weights of eq. 6 as printed: each token's spikes over their sum; 0 for a silent token."""
    return response / response.sum(-1, keepdim=True).clamp_min(EPSILON)  # (B, N, R)


class SemanticCollector(nn.Module):
    """C: (B, N, M2) spike counts over ``steps`` time steps to F_SNN (B, N, M1)."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.concepts = nn.Parameter(torch.empty(config.hidden_size, config.num_concepts))  # C, (M1, M2)
        self.rate_norm = rate_norm(config)
        self.norm = feature_norm(config)

    def forward(self, response: torch.Tensor, steps: int) -> torch.Tensor:
        weights = shares(response) if self.rate_norm is None else self.rate_norm(response / steps)  # (B, N, M2)
        return self.norm(weights.to(self.concepts.dtype) @ self.concepts.T)  # (B, N, M1)

    def standing_out(self, counts: torch.Tensor, steps: int) -> torch.Tensor:
        """What MVM's label is the argmax of, (B, N, M2): z, or in the literal form the spikes per step themselves."""
        rates = counts / steps  # (B, N, M2)
        return rates if self.rate_norm is None else self.rate_norm.standing_out(rates)


class SpikeRate(nn.Module):
    """The "without collector" row of Table XIV: the response itself, (B, N, M1), in place of C·z."""

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.rate_norm = rate_norm(config)
        self.norm = feature_norm(config)

    def forward(self, response: torch.Tensor, steps: int) -> torch.Tensor:
        weights = shares(response) if self.rate_norm is None else self.rate_norm(response / steps)  # (B, N, M1)
        return self.norm(weights)  # (B, N, M1)


class SummaryRatio(nn.Module):
    """SR and the sum of eq. 8, by ``config.summary_ratio``.

    Shape: F_CNN and F_SNN (B, N, M1) to Output (B, N, M1) and SR (B, N, 1); either is None where its branch is missing.
    """

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.variant = config.summary_ratio
        if self.variant == "trainable":
            self.phi = nn.Linear(config.hidden_size, 1)  # φ

    def forward(
        self, concrete: torch.Tensor | None, abstract: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if concrete is None:
            assert abstract is not None
            return abstract, abstract.new_ones((*abstract.shape[:2], 1))  # (B, N, M1), (B, N, 1)
        if abstract is None:
            return concrete, concrete.new_zeros((*concrete.shape[:2], 1))  # (B, N, M1), (B, N, 1)
        if self.variant == "trainable":
            ratio = torch.sigmoid(self.phi(concrete))  # (B, N, 1)
        else:
            ratio = concrete.new_ones((*concrete.shape[:2], 1))  # (B, N, 1)
        return ratio * abstract + concrete, ratio  # (B, N, M1), (B, N, 1)
