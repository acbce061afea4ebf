r"""Convolution and tdBN as one convolution, and weights whose sums over spikes are exact in any order.

    W' = γ·W/√(σ² + ε)        b' = β_bn − μ·γ/√(σ² + ε)

Order of summation. Two libraries add the taps of a convolution in different orders, and in float arithmetic the last
bit then differs; a neuron at its threshold flips, and the flip spreads through deeper layers and later steps. The
inputs are spikes, so a layer only ever adds weights: if these are multiples of one step that is a power of two, and
no partial sum exceeds 2²⁴ steps, float32 adds them without rounding and every order gives the same bits.
:func:`on_lattice` rounds W' and b' to the finest such step (20 to 23 bits below the largest sum: the resolution that a
float32 sum has anyway).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ashnets.errors import ConfigurationError

EXACT = 1 << 24  # every integer up to 2²⁴ is a float32


def fold(conv: nn.Conv2d, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """W' and b' in float64: convolution and normalization with running statistics as one convolution.

    Args:
        conv: with or without bias.
        norm: its tdBN; ``running_mean``, ``running_var``, ``eps``, ``weight`` (γ) and ``bias`` (β_bn) are read.
    """
    weight = conv.weight.detach().double().cpu()
    bias = torch.zeros(weight.shape[0], dtype=torch.float64) if conv.bias is None else conv.bias.detach().double().cpu()
    mean, variance, gamma, shift = (
        tensor.detach().double().cpu() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = gamma / torch.sqrt(variance + norm.eps)
    return weight * scale.view(-1, 1, 1, 1), shift + (bias - mean) * scale


def on_lattice(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Round to multiples of the finest power of two for which float32 sums over spikes are exact in any order.

    Args:
        weight: W', (O, I/groups, kH, kW), float64.
        bias: b', (O,), float64.

    Returns:
        Weight and bias as float32, and the step.

    Raises:
        ConfigurationError: weights that are not finite.
    """
    if not bool(torch.isfinite(weight).all() & torch.isfinite(bias).all()):
        raise ConfigurationError("a folded weight is not finite: the checkpoint or its running statistics are damaged")
    terms = torch.cat([weight.flatten(1), bias[:, None]], dim=1)
    # No partial sum, in whatever order, leaves [Σ negative terms, Σ positive terms].
    largest = float(torch.maximum(terms.clamp_min(0).sum(1), terms.clamp_max(0).sum(1).abs()).max())
    # The terms of one sum move by at most half a step each.
    exponent = math.frexp(max(largest, 1e-30) / (EXACT - terms.shape[1]))[1]
    step = math.ldexp(1.0, exponent)
    return (weight / step).round().mul(step).float(), (bias / step).round().mul(step).float(), step


def float32(value: float) -> float:
    """The float32 nearest to ``value``."""
    return float(torch.tensor(value, dtype=torch.float32))
