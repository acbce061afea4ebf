"""Firing rates of a model's spiking layers at inference, and a word on layers that pass nothing on.

A layer that never fires, or always does, gives every image the same. Nothing else shows it: exports match to the spike,
an energy report finds the branch cheap, and an ablation finds no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

SILENT, SATURATED = 0.001, 0.9  # rates under the one or over the other get a warning
MEASURED = 64  # images that are enough to know a layer's rate


@torch.inference_mode()
def layer_rates(model: Any, batches: Iterable[tuple[torch.Tensor, Sequence[int] | torch.Tensor]]) -> dict[str, float]:
    """Spikes for each neuron and time step of each spiking layer, each image from a reset state.

    Args:
        model: with or without a head, in evaluation mode.
        batches: images (B, 3, H, W) in [0, 1], and their keys for the sampler.

    Returns:
        Layer name → rate in [0, 1], in the order of the layers; empty without images, or without a spiking branch.
    """
    sums: dict[str, float] = {}
    images = 0
    for pixels, keys in batches if model.config.has_spiking_branch else ():
        vision = getattr(model, "ashnets", model).vision
        spikes = vision.sample(pixels.to(model.device), keys)
        found = vision.abstract_encoder(spikes)
        for name, fired in found.layer_spikes.items():
            sums[name] = sums.get(name, 0.0) + float(fired.double().sum()) / (found.layer_neurons[name] * len(spikes))
        images += len(pixels)
    return {name: total / images for name, total in sums.items()}


def rates_warnings(rates: Mapping[str, float]) -> list[str]:
    """A sentence for each silent and each saturated layer, and one where no spike leaves the last layer.

    Args:
        rates: layer → spikes for each neuron and time step at inference, in the order of the layers.
    """
    found = []
    for layer, rate in rates.items():
        if rate < SILENT:
            found.append(
                f"spiking layer {layer} is silent: at inference {100 * rate:.2g} % of its neurons fire at a time step, "
                f"under {100 * SILENT:g} %; train it with a lower optimizers.spiking.lr, or from the start with a "
                "greater changes.tdbn_alpha (wider input currents) or a smaller changes.decay_k (less leak)"
            )
        elif rate > SATURATED:
            found.append(
                f"spiking layer {layer} is saturated: at inference {100 * rate:.3g} % of its neurons fire at a time "
                f"step, over {100 * SATURATED:g} %; train it with a lower optimizers.spiking.lr, or from the start "
                "with a smaller changes.tdbn_alpha (narrower input currents) or a greater changes.decay_k (more leak)"
            )
    if rates and not list(rates.values())[-1]:
        found.append(
            "no spike leaves the spiking branch: it gives every image the same, so that spikes that agree, energy "
            "saved and equal results with and without the branch show nothing"
        )
    return found
