"""Fig. 4: a contact sheet of a random and of a similar batch of training images."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from ashnets.data.pairs import Pairs
from ashnets.data.similar import mean_similarity, random_groups, similar_groups
from ashnets.device import own_device
from ashnets.evaluation.embedding import embed_images
from ashnets.evaluation.options import RESET, EvaluationOptions
from ashnets.evaluation.own_images import sampled
from ashnets.experiments.units import Unit
from ashnets.figures import png, style
from ashnets.files import JsonObject, write_atomically
from ashnets.hub.loading import from_pretrained
from ashnets.runs import training_source

SHEET_IMAGE = "contact-sheet.png"
SAMPLE = 4096  # training images that are searched
TITLES = {"random": "original samples", "similar": "similar samples, by ITC"}


def draw_batches(unit: Unit, progress: bool = True) -> JsonObject:
    """Draw φ random and φ similar images into the unit's folder; returns the mean similarity inside all such batches.

    The similar batch is the one whose first image has the lowest index of all; nothing is picked by eye.
    """
    recipe = unit.pretraining.settings()
    model = from_pretrained(unit.pretraining.model, task="retrieval").to(own_device())
    group, seed = model.config.group_size, unit.seed
    pairs = Pairs(training_source(recipe, unit.pretraining.data), recipe.train, model.config.image_size)
    chosen = np.asarray(sampled(pairs, SAMPLE, seed) or range(len(pairs)))
    embeds = embed_images(model, pairs, chosen, RESET, EvaluationOptions(progress=progress))[0].numpy()
    groups = {
        "random": random_groups(len(chosen), group, seed),
        "similar": similar_groups(embeds, group, seed).groups,
    }
    shown = {name: chosen[min(found, key=lambda one: int(one[0]))[:group]] for name, found in groups.items()}
    pictures = {name: pairs.on_white(indices) for name, indices in shown.items()}  # (φ, 3, S, S) each
    write_atomically(unit.folder / SHEET_IMAGE, contact_sheet(pictures))
    metrics = {name: round(mean_similarity(embeds, found), 4) for name, found in groups.items()}
    return {"metrics": metrics, "n": len(chosen)}


def contact_sheet(batches: dict[str, torch.Tensor]) -> bytes:
    """A PNG with a grid for each batch of images (φ, 3, S, S) in [0, 1]."""
    size = max(len(images) for images in batches.values())
    across = int(np.ceil(size**0.5))
    with style():
        figure = Figure(figsize=(1 + 4 * len(batches), 4.6), layout="constrained")
        parts = figure.subfigures(1, len(batches), squeeze=False)[0]
        for part, (name, images) in zip(parts, batches.items(), strict=True):
            part.suptitle(TITLES[name])
            grid = part.subplots(-(-size // across), across, squeeze=False).flatten()
            for axes in grid:
                axes.axis("off")
            for axes, image in zip(grid, images, strict=False):
                axes.imshow(image.permute(1, 2, 0).numpy())
        return png(figure)
