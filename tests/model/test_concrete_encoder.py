"""Eq. 4 and decision 11: F_CNN = V(I), transformers' backbones and a projection written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_model import array, random_images, small_config
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel, ViTModel

from ashnets.errors import InputError
from ashnets.model.concrete_encoder import ConcreteEncoder, backbone_config

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    return torch.tensor((array(pixels) - MEAN[:, None, None]) / STD[:, None, None], dtype=torch.float32)


def project(features: torch.Tensor, encoder: ConcreteEncoder) -> np.ndarray:
    """1×1 convolution as a sum over channels; token n = row · grid + column."""
    weight, bias, x = array(encoder.projection.weight)[:, :, 0, 0], array(encoder.projection.bias), array(features)
    images, _, height, width = x.shape
    tokens = np.zeros((images, height * width, weight.shape[0]))
    for b, row, column, o in np.ndindex(images, height, width, weight.shape[0]):
        total = bias[o]
        for c in range(x.shape[1]):
            total += weight[o, c] * x[b, c, row, column]
        tokens[b, row * width + column, o] = total
    centered = tokens - tokens.mean(-1, keepdims=True)  # the layer norm, with γ = 1 and β = 0
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-12)


def test_equals_resnet_on_the_normalized_image_and_a_projection():
    torch.manual_seed(0)
    encoder = ConcreteEncoder(small_config(image_size=32)).eval()
    oracle = ResNetModel(
        ResNetConfig(layer_type="basic", depths=[2, 2], hidden_sizes=[8, 12], embedding_size=8, hidden_act="relu")
    ).eval()
    oracle.load_state_dict(encoder.backbone.state_dict())
    pixels = random_images(2, 32)
    with torch.no_grad():
        expected = project(oracle(normalized(pixels)).last_hidden_state, encoder)
        tokens = encoder(pixels)
    assert tokens.shape == (2, 16, 16)
    np.testing.assert_allclose(array(tokens), expected, rtol=1e-3, atol=1e-5)


def test_equals_vit_without_its_class_token():
    torch.manual_seed(0)
    config = small_config(backbone="vit-b16", backbone_widths=[], image_size=32, spiking_channels=[4] * 4)
    encoder = ConcreteEncoder(config).eval()
    pixels = random_images(1, 32)
    with torch.no_grad():
        hidden = encoder.backbone(normalized(pixels), interpolate_pos_encoding=True).last_hidden_state
        tokens = encoder(pixels)
    grid = hidden[:, 1:].reshape(1, 2, 2, 768).permute(0, 3, 1, 2)
    np.testing.assert_allclose(array(tokens), project(grid, encoder), rtol=1e-3, atol=1e-4)
    assert isinstance(encoder.backbone, ViTModel)
    assert sum(p.numel() for p in encoder.backbone.parameters()) == 85_798_656  # ViT-B/16 without a head


@pytest.mark.parametrize(
    ("backbone", "tokens"),
    [("resnet18", 64), ("resnet50", 64), ("resnet101", 64), ("resnet152", 64), ("vit-b16", 256)],
)
def test_number_of_tokens_at_256_pixels(backbone, tokens):
    layers = 4 if backbone == "vit-b16" else 5
    config = small_config(
        backbone=backbone,
        backbone_widths=[],
        image_size=256,
        hidden_size=768,
        num_attention_heads=12,
        spiking_channels=[8] * layers,
    )
    with torch.device("meta"):
        encoder = ConcreteEncoder(config).eval()
        features = encoder(torch.empty(2, 3, 256, 256))
    assert features.shape == (2, tokens, 768)
    assert config.num_visual_tokens == tokens


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("resnet101", 44_549_160), ("resnet152", 60_192_808)],
)
def test_backbones_are_the_published_ones(backbone, parameters):
    """11.69, 44.55 and 60.19 M with their classifier, as the paper counts."""
    config = small_config(backbone=backbone, backbone_widths=[], image_size=256, spiking_channels=[8] * 5)
    settings = backbone_config(config)
    settings.num_labels = 1000
    with torch.device("meta"):
        whole = ResNetForImageClassification(settings)
    assert sum(p.numel() for p in whole.parameters()) == parameters


def test_each_image_is_encoded_on_its_own():
    torch.manual_seed(0)
    encoder = ConcreteEncoder(small_config()).eval()
    pixels = random_images(5)
    with torch.no_grad():
        together = encoder(pixels)
        for order in ([3], [4, 3, 0], [0, 0, 3, 3]):
            torch.testing.assert_close(encoder(pixels[order]), together[order], rtol=1e-5, atol=1e-6)


def test_other_normalization_is_configuration():
    torch.manual_seed(0)
    encoder = ConcreteEncoder(small_config()).eval()
    plain = ConcreteEncoder(small_config(image_mean=[0, 0, 0], image_std=[1, 1, 1])).eval()
    plain.load_state_dict(encoder.state_dict())
    pixels = random_images(2)
    with torch.no_grad():
        torch.testing.assert_close(plain(normalized(pixels)), encoder(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 3, 8, 16), (1, 3, 16, 32), (1, 16, 16, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match=r"takes \(B, 3, 16, 16\)"):
        ConcreteEncoder(small_config())(torch.rand(shape))


def test_float_images_meet_bf16_weights():
    torch.manual_seed(0)
    encoder = ConcreteEncoder(small_config()).eval()
    pixels = random_images(2)
    with torch.no_grad():
        expected = encoder(pixels)
        tokens = encoder.bfloat16()(pixels)
    assert tokens.dtype == torch.bfloat16
    torch.testing.assert_close(tokens.float(), expected, rtol=0.1, atol=0.05)
