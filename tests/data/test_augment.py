"""Augmentation: ranges, determinism."""

from __future__ import annotations

import pytest
import torch

from ashnets.data.augment import augment, on_background


def disc(side: int = 32) -> torch.Tensor:
    """A red disc on transparent pixels whose invisible color is green."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    inside = ((x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 4) ** 2).float()
    return torch.stack([inside, 1 - inside, torch.zeros_like(inside), inside])


def draws(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 15, generator=torch.Generator().manual_seed(seed))


def test_background_by_hand():
    rgba = torch.tensor([0.2, 0.4, 0.6, 0.25]).view(1, 4, 1, 1)
    color = torch.tensor([1.0, 0.0, 0.5]).view(1, 3, 1, 1)
    mixed = on_background(rgba, color).flatten().tolist()
    assert mixed == pytest.approx([0.25 * 0.2 + 0.75, 0.1, 0.15 + 0.375])


def test_augment_stays_in_range_and_follows_its_draws():
    batch = disc().expand(64, -1, -1, -1)
    first = augment(batch, draws(64, 1))
    assert first.shape == (64, 3, 32, 32)
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, augment(batch, draws(64, 1)))
    assert not torch.equal(first, augment(batch, draws(64, 2)))
    assert len({tuple(x.flatten().tolist()) for x in first}) == 64, "each image has a draw of its own"


def test_invisible_colors_never_show():
    """Only transparent pixels are green: on white, green is close to blue in every pixel."""
    batch = disc().expand(200, -1, -1, -1)
    out = augment(batch, draws(200, 0))
    corners_white = out[:, :, 0, 0].min(1).values > 0.999
    assert corners_white.sum() > 50
    on_white = out[corners_white]
    # gain differs a little between channels; a bleeding edge would lift green by up to one
    assert (on_white[:, 1] - on_white[:, 2]).abs().max() < 0.36
    center = on_white[:, :, 16, 16]
    assert (center[:, 0] >= center[:, 1]).all()
