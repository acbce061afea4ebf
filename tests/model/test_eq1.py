r"""Eq. 1, the ANN neuron with its residual: y = σ(w∗x + b) + δ(x).

The residual unit of the backbone, by loops: w and b are a convolution with its batch norm folded in, δ is the
alignment (a strided 1×1 convolution where sizes differ, else the identity). The published ResNets, whose weights we
load, apply the last σ after the sum: y = σ(w₂∗σ(w₁∗x + b₁) + b₂ + δ(x)).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_model import array, loop_conv, small_config
from torch import nn

from ashnets.model.concrete_encoder import ConcreteEncoder


@pytest.fixture(scope="module")
def encoder() -> ConcreteEncoder:
    torch.manual_seed(0)
    encoder = ConcreteEncoder(small_config(backbone_widths=[3, 4])).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return encoder


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """w and b of eq. 1."""
    scale = array(norm.weight) / np.sqrt(array(norm.running_var) + norm.eps)
    return array(convolution.weight) * scale[:, None, None, None], array(norm.bias) - array(norm.running_mean) * scale


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


@pytest.mark.parametrize(("stage", "unit", "stride"), [(0, 0, 1), (1, 0, 2), (1, 1, 1)])
def test_residual_unit_is_the_equation(encoder, stage, unit, stride):
    block = encoder.backbone.encoder.stages[stage].layers[unit]
    first, second = block.layer
    x = torch.randn(1, first.convolution.in_channels, 4, 4)
    w1, b1 = folded(first.convolution, first.normalization)
    w2, b2 = folded(second.convolution, second.normalization)
    if stride == 2:
        wd, bd = folded(block.shortcut.convolution, block.shortcut.normalization)
        delta = loop_conv(array(x[0]), wd, 2, 0, bd)
    else:
        assert isinstance(block.shortcut, nn.Identity)
        delta = array(x[0])
    inner = relu(loop_conv(array(x[0]), w1, stride, 1, b1))
    expected = relu(loop_conv(inner, w2, 1, 1, b2) + delta)
    with torch.no_grad():
        np.testing.assert_allclose(array(block(x)[0]), expected, rtol=1e-4, atol=1e-5)


def test_plain_unit_is_the_equation_without_alignment(encoder):
    """The stem: y = σ(w∗x + b), δ = 0."""
    stem = encoder.backbone.embedder.embedder
    x = torch.randn(1, 3, 8, 8)
    w, b = folded(stem.convolution, stem.normalization)
    with torch.no_grad():
        np.testing.assert_allclose(array(stem(x)[0]), relu(loop_conv(array(x[0]), w, 2, 3, b)), rtol=1e-4, atol=1e-5)
