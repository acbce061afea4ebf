"""Augmentation and decoded pairs: ranges, determinism, and what must stay as the processor gives it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ashnets.data.augment import augment, on_background
from ashnets.data.corpus import open_corpus
from ashnets.data.pairs import Pairs
from ashnets.errors import DataError
from ashnets.processor import AshNetsImageProcessor


def disc(side: int = 32) -> torch.Tensor:
    """A red disc on nothing, whose invisible pixels hold a loud green."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    inside = ((x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 4) ** 2).float()
    return torch.stack([inside, 1 - inside, torch.zeros_like(inside), inside])


def test_background_by_hand():
    rgba = torch.tensor([0.2, 0.4, 0.6, 0.25]).view(1, 4, 1, 1)
    colour = torch.tensor([1.0, 0.0, 0.5]).view(1, 3, 1, 1)
    mixed = on_background(rgba, colour).flatten().tolist()
    assert mixed == pytest.approx([0.25 * 0.2 + 0.75, 0.1, 0.15 + 0.375])


def test_augment_stays_in_range_and_follows_its_generator():
    batch = disc().expand(64, -1, -1, -1)
    first = augment(batch, torch.Generator().manual_seed(1))
    assert first.shape == (64, 3, 32, 32)
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, augment(batch, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, augment(batch, torch.Generator().manual_seed(2)))
    assert len({tuple(x.flatten().tolist()) for x in first}) == 64, "each picture has a draw of its own"


def test_invisible_colours_never_show():
    """Green exists in transparent pixels alone: over white, green stays near blue in every pixel."""
    batch = disc().expand(200, -1, -1, -1)
    out = augment(batch, torch.Generator().manual_seed(0))
    corners_white = out[:, :, 0, 0].min(1).values > 0.999
    assert corners_white.sum() > 50
    on_white = out[corners_white]
    # gain differs a little between channels; a bleeding edge would lift green by up to one
    assert (on_white[:, 1] - on_white[:, 2]).abs().max() < 0.36
    centre = on_white[:, :, 16, 16]
    assert (centre[:, 0] >= centre[:, 1]).all()


def test_pairs_decode_as_the_processor_does(corpus):
    """Pictures on white are those of AshNetsProcessor, but for alpha being mixed after the resize instead of before."""
    opened = open_corpus(corpus)
    pairs = Pairs(opened, ["train"], 64, progress=False)
    assert len(pairs) == 27 and pairs.pictures.dtype == torch.uint8
    rows = [row["image"] for row in opened.split("train")]
    expected = AshNetsImageProcessor(64)(rows, return_tensors="pt")["pixel_values"]
    got = pairs.on_white(np.arange(27))
    assert (got - expected).abs().mean() < 0.01
    assert sorted(set(pairs.samples.tolist())) == list(range(len(set(pairs.concepts))))


def test_captions_are_drawn_as_asked(corpus):
    pairs = Pairs(open_corpus(corpus), ["train"], 32, progress=False)
    indices = np.repeat(np.arange(27), 100)
    drawn = pairs.draw_captions(indices, np.random.default_rng(0), bare_name=0.4)
    bare = np.mean([caption == pairs.captions[i][0] for i, caption in zip(indices, drawn, strict=True)])
    assert bare == pytest.approx(0.4, abs=0.04)
    assert all(caption in pairs.captions[i] for i, caption in zip(indices, drawn, strict=True))


def test_an_undecodable_picture_is_named(tmp_path, write_corpus):
    row = {"image": b"\x89PNG no", "image_id": "v/1", "concept": "1", "name": "a", "group": "g", "captions": ["a"]}
    folder = write_corpus(tmp_path / "c", {"train": [row]})
    with pytest.raises(DataError, match="v/1"):
        Pairs(open_corpus(folder), ["train"], 32, progress=False)
