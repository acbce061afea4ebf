"""Augmentation of drawn images, a whole batch at once: background, geometry, color, sharpness.

Vendors draw one concept in different colors, outlines and proportions; a model for drawings of unseen vendors must not
depend on these. There is no left–right flip, since arrows and hands have a side.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def on_background(rgba: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """(B, 4, H, W) in [0, 1] over (B, 3, 1, 1) colors, to (B, 3, H, W)."""
    alpha = rgba[:, 3:]
    return rgba[:, :3] * alpha + color * (1 - alpha)


def augment(rgba: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """One variant of each image.

    Args:
        rgba: (B, 4, H, W) in [0, 1], color not multiplied by alpha.
        draws: (B, 15), uniform in [0, 1); one row for each image.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    columns = iter(draws.unbind(1))

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        drawn = torch.stack([next(columns) for _ in range(math.prod(shape))], 1)
        return low + (high - low) * drawn.view(len(rgba), *shape)

    angle = uniform(-math.pi / 12, math.pi / 12)
    zoom = uniform(0.9, 1.4)
    stretch = uniform(-0.12, 0.12).exp()
    shift = uniform(-0.12, 0.12, 2)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [
            torch.stack([cos * stretch, -sin, shift[:, 0]], 1),
            torch.stack([sin, cos / stretch, shift[:, 1]], 1),
        ],
        1,
    )
    # Premultiplied, so that transparent pixels do not bleed their color into the edge.
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    grid = F.affine_grid(theta, list(rgba.shape), align_corners=False)
    moved = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    color, alpha = moved[:, :3], moved[:, 3:]
    gain = uniform(0.75, 1.25, 1, 1, 1) * uniform(0.85, 1.15, 3, 1, 1)
    color = color * gain
    gray = color.mean(1, keepdim=True)
    saturation = uniform(0.3, 1.3, 1, 1, 1)
    color = (gray + (color - gray) * saturation).clamp(0, 1).minimum(alpha)

    white = uniform(0.0, 1.0, 1, 1, 1) < 0.5
    background = torch.where(white, torch.ones(3, 1, 1), uniform(0.0, 1.0, 3, 1, 1))
    image = color + background * (1 - alpha)

    soft = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blend = uniform(-0.3, 0.8, 1, 1, 1)  # below 0 sharpens, above 0 blurs
    return (image + (soft - image) * blend).clamp(0, 1)
