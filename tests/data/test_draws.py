"""Random numbers of an image: different in each epoch, independent of its neighbors, uniform."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ashnets.data.draws import draw


def test_a_images_draws_depend_on_seed_epoch_and_image_alone():
    keys = [5, 9, 2**62 + 3, 0]
    together = draw(3, 7, keys, 6)
    for place, key in enumerate(keys):
        alone = draw(3, 7, [key], 6)
        for name in vars(together):
            assert torch.equal(getattr(together, name)[place], getattr(alone, name)[0]), name
    for other in (draw(4, 7, keys, 6), draw(3, 8, keys, 6), draw(3, 7, [6, 10, 4, 1], 6)):
        assert not (other.augment == together.augment).any()


def test_shapes_and_uniformity():
    drawn = draw(0, 0, range(4000), 5)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in vars(drawn).items()}
    assert shapes == {
        "augment": (15,),
        "caption": (2,),
        "fused": (),
        "negative_text": (),
        "negative_image": (),
        "concept": (),
        "words": (3, 5),
    }
    columns = torch.cat([tensor.reshape(4000, -1) for tensor in vars(drawn).values()], 1).numpy()
    assert columns.min() >= 0 and columns.max() < 1
    # five standard errors of a mean and of a share
    assert columns.mean(0) == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / 4000))
    assert (columns < 0.1).mean(0) == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 4000))
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 5.5 / np.sqrt(4000), "no two numbers of an image go together"


def test_epochs_differ_for_seeds_of_any_size():
    """A key of 64 bits, of which floats would keep 53: the epoch is in the last ones."""
    for seed in (2**43, 9_300_000_000_000, 2**63 - 1):
        epochs = [draw(seed, epoch, [5], 6).augment for epoch in range(3)]
        assert not any((a == b).any() for a, b in itertools.combinations(epochs, 2)), seed
