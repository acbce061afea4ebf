"""How many spikes of each layer differ between two models that see the same input spikes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from ashnets.model.pretrained import AshNetsPreTrainedModel


@torch.inference_mode()
def spikes_changed(
    before: AshNetsPreTrainedModel, after: AshNetsPreTrainedModel, batches: Iterable[tuple[torch.Tensor, Sequence[int]]]
) -> dict[str, dict[str, float]]:
    """Compare the spikes of two models' layers, each image from a reset state.

    Args:
        before, after: the float model and the model compared with it.
        batches: images (B, 3, H, W) in [0, 1] and their keys, from which both models draw the same input spikes.

    Returns:
        For each layer ``rate_float`` and ``rate``, spikes per neuron and time step; ``changed``, the share of all
        neurons and time steps that differ; ``changed_per_spike``, the number of differences over the float model's
        spikes.
    """
    sums: dict[str, np.ndarray] = {}
    for pixels, keys in batches:
        outputs = []
        for model in (before, after):
            vision = model.ashnets.vision
            outputs.append(vision.abstract_encoder.run(vision.sample(pixels.to(model.device), keys))[0])
        for name, ours in outputs[0].items():
            theirs = outputs[1][name].to(ours.device)
            found = [ours.sum(dtype=torch.int64), theirs.sum(dtype=torch.int64), (ours != theirs).sum()]
            sums[name] = sums.get(name, 0) + np.array([*map(int, found), ours.numel()])
    return {
        name: {
            "rate_float": round(ours / total, 5),
            "rate": round(theirs / total, 5),
            "changed": round(changed / total, 5),
            "changed_per_spike": round(changed / ours, 5) if ours else 0.0,
        }
        for name, (ours, theirs, changed, total) in ((name, row.tolist()) for name, row in sums.items())
    }
