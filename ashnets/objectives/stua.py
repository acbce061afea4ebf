r"""Spiking-to-text uni-alignment (STUA; eq. 9, 10, 11).

    r(S, L) = h_v(v)ᵀ h_w(w)
    f^{s2l}_m(S) = softmax_m( r(S, L_m)/τ )
    ℒ_STUA = ½·E[ H(p^{s2l}(S), f^{s2l}(S)) ]

Only the direction from spiking to text is used. v is the mean of SR·F_SNN over tokens: with the shared readout, F_SNN
alone is equal for all images of a group, and the loss would be degenerate.
"""

from __future__ import annotations

import torch

from ashnets.objectives.itc import soft_cross_entropy


def stua_loss(spiking: torch.Tensor, text: torch.Tensor, tau: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """ℒ_STUA of B pairs.

    Args:
        spiking: h_v(v), (B, 256), unit length.
        text: h_w(w), (B, 256), unit length.
        tau: τ, a scalar.
        positive: (B, B), True where spiking feature i and text j are the same sample; p^{s2l} is uniform over them.
    """
    return soft_cross_entropy(spiking @ text.T / tau, positive) / 2  # ()
