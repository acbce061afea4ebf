r"""Visual concrete encoder V (eq. 4):  F_CNN,b = V(I_b; Θ),  F_CNN ∈ (N, M1).

V is a ResNet or a ViT of transformers. A 1×1 convolution projects its last feature map to M1 (our decision: the paper
does not say how the two widths are matched), and a layer norm gives F_CNN the scale of F_SNN
(:mod:`ashnets.model.collector`). Each image is encoded independently.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import nn
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from ashnets.configuration import AshNetsConfig
from ashnets.errors import InputError
from ashnets.model.collector import feature_norm

RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    "resnet50": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
    "resnet101": {"layer_type": "bottleneck", "depths": [3, 4, 23, 3], "hidden_sizes": [256, 512, 1024, 2048]},
    "resnet152": {"layer_type": "bottleneck", "depths": [3, 8, 36, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}
# Where ImageNet weights of each backbone are published, as safetensors.
IMAGENET_REPOSITORIES = {
    "resnet18": "microsoft/resnet-18",
    "resnet50": "microsoft/resnet-50",
    "resnet101": "microsoft/resnet-101",
    "resnet152": "microsoft/resnet-152",
    "vit-b16": "google/vit-base-patch16-224",
}


def backbone_config(config: AshNetsConfig) -> ResNetConfig | ViTConfig:
    """The transformers configuration of the backbone."""
    if config.backbone == "vit-b16":
        # Positions are learned on 14 × 14 patches (224 px) and interpolated to the grid of image_size.
        attention: dict[str, Any] = {"attn_implementation": config._attn_implementation}
        return ViTConfig(image_size=224, patch_size=16, **attention)
    if config.backbone == "resnet-tiny":
        widths = list(config.backbone_widths)
        return ResNetConfig(
            layer_type="basic",
            depths=[2] * len(widths),
            hidden_sizes=widths,
            embedding_size=widths[0],
            hidden_act="relu",
        )
    form: dict[str, Any] = {"downsample_in_bottleneck": config.downsample_in_bottleneck, **RESNETS[config.backbone]}
    return ResNetConfig(embedding_size=64, hidden_act="relu", **form)


def check_pixels(pixel_values: torch.Tensor, side: int) -> None:
    """Raises InputError if the images do not have the shape (B, 3, side, side)."""
    if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != (3, side, side) or pixel_values.shape[0] == 0:
        raise InputError(
            f"pixel_values of shape {tuple(pixel_values.shape)}: this model takes (B, 3, {side}, {side}), "
            "B ≥ 1, as AshNetsProcessor makes them"
        )


class ConcreteEncoder(nn.Module):
    """V: images to N concrete tokens.

    Shape: pixel values (B, 3, H, W) in [0, 1] to F_CNN (B, N, M1). The ImageNet normalization is inside, because the
    spiking branch needs the plain intensities of the same tensor.
    """

    memory: Any = None  # of the features of a frozen backbone, where a run keeps them (ashnets.training.features)

    def __init__(self, config: AshNetsConfig) -> None:
        super().__init__()
        self.config = config
        settings = backbone_config(config)
        self.backbone: nn.Module
        if isinstance(settings, ViTConfig):
            self.backbone = ViTModel(settings, add_pooling_layer=False)
            width = settings.hidden_size
        else:
            self.backbone = ResNetModel(settings)
            assert settings.hidden_sizes is not None  # set by backbone_config
            width = settings.hidden_sizes[-1]
        self.projection = nn.Conv2d(width, config.hidden_size, kernel_size=1)
        self.norm = feature_norm(config)

    def forward(self, pixel_values: torch.Tensor, hidden_states: deque[torch.Tensor] | None = None) -> torch.Tensor:
        """F_CNN; the hidden states of the backbone are appended to ``hidden_states``."""
        check_pixels(pixel_values, self.config.image_size)
        mean = pixel_values.new_tensor(self.config.image_mean).view(1, 3, 1, 1)
        std = pixel_values.new_tensor(self.config.image_std).view(1, 3, 1, 1)
        x = ((pixel_values - mean) / std).to(self.projection.weight.dtype)  # (B, 3, H, W)
        if self.memory is None or hidden_states is not None:
            features = self._features(x, hidden_states)  # (B, width, h, w)
        else:
            features = self.memory(x, self._features)  # (B, width, h, w)
        return self.norm(self.projection(features).flatten(2).transpose(1, 2))  # (B, N, M1)

    def _features(self, x: torch.Tensor, hidden_states: deque[torch.Tensor] | None = None) -> torch.Tensor:
        """The backbone's last map."""
        options = {"interpolate_pos_encoding": True} if self.config.backbone == "vit-b16" else {}
        out = self.backbone(x, output_hidden_states=hidden_states is not None, **options)
        if hidden_states is not None:
            hidden_states.extend(out.hidden_states)
        if self.config.backbone != "vit-b16":
            return out.last_hidden_state  # (B, width, h, w)
        grid = self.config.grid
        tokens = out.last_hidden_state[:, 1:]  # (B, N, width)
        return tokens.transpose(1, 2).unflatten(2, (grid, grid))  # (B, width, h, w)
