"""Augmentation of photographs against formulas in numpy, torch and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from ashnets.data.photographs import FILL, RANDAUGMENT, crop, vary

SIDE = 48
IDENTITY, STILL = 0.0, [0.99, 0.5, 0.5, 0.5]  # the first operation changes nothing; a crop of nearly all


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """Smooth, so that resampling differs little between libraries; three different channels."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    channels = [np.sin(3 * x + y), np.cos(2 * y - x), x * y]
    return Image.fromarray(np.stack([60 + 90 * (c - c.min()) for c in channels], 2).clip(0, 255).astype(np.uint8))


def numbers(image: Image.Image) -> np.ndarray:
    """(H, W, 3)."""
    return np.asarray(image).astype(np.float64)


def affine(image: Image.Image, matrix: list[list[float]]) -> np.ndarray:
    """torch's sampling of the same map from target to source, about the corner, without its border."""
    wide = torch.from_numpy(numbers(image)).permute(2, 0, 1)[None]
    at = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), -1).double() + 0.5
    source = at @ torch.tensor(matrix).double()[:, :2].T + torch.tensor(matrix).double()[:, 2]
    return F.grid_sample(wide, 2 * source[None] / SIDE - 1, align_corners=False)[0].permute(1, 2, 0).numpy()


def inside(found: np.ndarray) -> np.ndarray:
    """Where the result shows the image, not the fill."""
    return ndimage.binary_erosion((found != np.array(FILL)).any(-1), iterations=2)


@pytest.mark.parametrize("level", [0.7, -0.7])
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y"])
def test_moves_are_those_of_torch_with_timms_ranges(image, name, level):
    shift = 0.45 * level * SIDE
    matrix = {
        "shear_x": [[1, 0.3 * level, 0], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [0.3 * level, 1, 0]],
        "translate_x": [[1, 0, shift], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, shift]],
    }[name]
    found = numbers(RANDAUGMENT[name](image, level))
    where = inside(found)
    assert where.mean() > 0.4
    assert np.abs(found - affine(image, matrix))[where].max() <= 1.5
    assert (found == np.array(FILL)).all(-1).mean() > 0.05


@pytest.mark.parametrize("level", [0.7, -0.7])
def test_rotation_is_scipys(image, level):
    found = numbers(RANDAUGMENT["rotate"](image, level))
    turned = ndimage.rotate(numbers(image), 30 * level, axes=(0, 1), reshape=False, order=1)
    where = inside(found)
    assert where.mean() > 0.5 and np.abs(found - turned)[where].max() <= 2


@pytest.mark.parametrize("level", [0.7, -0.7])
def test_brightness_and_sharpness_by_formula(image, level):
    factor, plain = 1 + 0.9 * level, numbers(image)
    found = numbers(RANDAUGMENT["brightness"](image, level))
    assert np.abs(found - (plain * factor).clip(0, 255)).max() <= 1
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    soft = np.stack([ndimage.convolve(plain[..., c], kernel) for c in range(3)], 2)
    found = numbers(RANDAUGMENT["sharpness"](image, level))[1:-1, 1:-1]
    assert np.abs(found - (soft + factor * (plain - soft)).clip(0, 255)[1:-1, 1:-1]).max() <= 1.5


def test_autocontrast_and_equalization_by_formula(image):
    plain = numbers(image)
    low, high = plain.min((0, 1)), plain.max((0, 1))
    found = numbers(RANDAUGMENT["autocontrast"](image, 0.7))
    assert np.abs(found - (plain - low) * 255 / (high - low)).max() <= 1
    image = image.resize((256, 256))
    plain, found = numbers(image), numbers(RANDAUGMENT["equalize"](image, 0.7))
    for channel in range(3):
        values = plain[..., channel]
        smaller = np.searchsorted(np.sort(values.ravel()), values)
        share = smaller / (values < values.max()).sum()
        assert np.abs(found[..., channel] - 255 * share).max() <= 2, "the histogram becomes flat, by steps"


@pytest.mark.parametrize("name", ["identity", "autocontrast", "equalize", "brightness"])
def test_no_operation_inverts(image, name):
    """What was brighter in a channel is not darker afterwards; the others only move or blur."""
    for level, channel in itertools.product((0.7, -0.7), range(3)):
        before, after = numbers(image)[..., channel].ravel(), numbers(RANDAUGMENT[name](image, level))[..., channel]
        assert (np.diff(after.ravel()[np.argsort(before, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("draws", list(itertools.product([0.0, 0.999], repeat=4)))
def test_crops_by_the_published_rule(draws):
    """Where torchvision's first try fits, the crop is the one that its formula gives."""
    width, height = 200, 160
    y, x = np.mgrid[0:height, 0:width]
    found = np.asarray(crop(Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)), iter(draws)))
    area = width * height * (0.5 + 0.5 * draws[0])
    ratio = math.exp(math.log(3 / 4) + draws[1] * (math.log(4 / 3) - math.log(3 / 4)))
    wanted = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    shown = found.shape[1], found.shape[0]
    assert shown == (min(wanted[0], width), min(wanted[1], height))
    left, top = found[0, 0, :2]
    assert left == int(draws[2] * (width - shown[0] + 1)) and top == int(draws[3] * (height - shown[1] + 1))


@pytest.mark.parametrize(
    ("caption", "flipped"),
    [
        ("a man with a hat", True),
        ("a man on the LEFT side", False),
        ("the rightmost cup", False),
        ("bright leftovers", False),  # "leftovers" begins like "left": rather too few flips than a false caption
        ("a bright light", True),
    ],
)
def test_flips_unless_the_caption_names_a_side(image, caption, flipped):
    def shown(flip: float) -> np.ndarray:
        return vary(image, [*STILL, flip, IDENTITY, 0, IDENTITY, 0], SIDE, caption).numpy()

    assert np.array_equal(shown(0.2), shown(0.8)[:, :, ::-1] if flipped else shown(0.8))


def test_a_variant_depends_on_its_draws_alone(image):
    generator = np.random.default_rng(0)
    draws = generator.random((40, 15)).tolist()
    first = [vary(image, own, 32, "a cup") for own in draws]
    assert all(one.shape == (3, 32, 32) and one.dtype == torch.uint8 for one in first)
    assert all(torch.equal(one, vary(image, own, 32, "a cup")) for one, own in zip(first, draws, strict=True))
    assert len({one.numpy().tobytes() for one in first}) == 40
