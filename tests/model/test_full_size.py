"""Both summands of eq. 8 have one scale in every whole architecture, on real images."""

from __future__ import annotations

import pytest
import torch

from ashnets.zoo.creating import create
from ashnets.zoo.gallery_images import gallery_images


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["shared", "per_image"])
@pytest.mark.parametrize("name", ["ashnets-tiny", "ashnets-r18", "ashnets-r101", "ashnets-r152", "ashnets-vit-b16"])
def test_the_ratio_of_the_summands_of_a_whole_model(name, readout):
    """‖SR·F_SNN‖/‖F_CNN‖ of random weights: one group of the gallery, statistics of the batch, as in a first step."""
    model = create(name, seed=0, readout=readout).train()
    batches = list(gallery_images(model.config.image_size, count=model.config.group_size))
    pixels = torch.cat([pixels for pixels, _ in batches])
    keys = [key for _, keys in batches for key in keys]
    with torch.no_grad():
        visual = model.vision(pixels, image_keys=keys)
    abstract = (visual.summary_ratio * visual.abstract).norm(dim=-1).mean()
    assert 0.2 < abstract / visual.concrete.norm(dim=-1).mean() < 2
