"""Firing rates of a model's spiking layers at inference, and warnings about layers that carry no information.

A layer that never fires, or always fires, has the same output for every image. No other check shows this: exports agree
in every spike, an energy report finds the branch cheap, and an ablation finds no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ashnets.model.ashnets import AshNetsModel
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.sampling import ImageKeys

SILENT, SATURATED = 0.001, 0.9  # a rate below the first or above the second gives a warning
MEASURED = 64  # images that suffice to estimate a layer's rate


@torch.inference_mode()
def layer_rates(model: AshNetsPreTrainedModel, batches: Iterable[tuple[torch.Tensor, ImageKeys]]) -> dict[str, float]:
    """Firing rate of each spiking layer: spikes per neuron and time step, each image from a reset state.

    Args:
        model: with or without a head, in evaluation mode.
        batches: images (B, 3, H, W) in [0, 1], and their keys for the sampler.

    Returns:
        Layer name → rate in [0, 1], in the order of the layers; empty without images, or without a spiking branch.
    """
    bare = getattr(model, "ashnets", model)
    if not isinstance(bare, AshNetsModel) or not model.config.has_spiking_branch:
        return {}
    sums: dict[str, float] = {}
    images = 0
    for pixels, keys in batches:
        spikes = bare.vision.sample(pixels.to(model.device), keys)  # (T, B, 3, H, W)
        found = bare.vision.abstract_encoder(spikes)
        for name, fired in found.layer_spikes.items():
            sums[name] = sums.get(name, 0.0) + float(fired.double().sum()) / (found.layer_neurons[name] * len(spikes))
        images += len(pixels)
    return {name: total / images for name, total in sums.items()}


def rates_warnings(rates: Mapping[str, float]) -> list[str]:
    """One sentence for each silent and each saturated layer, and one if the last layer never fires.

    Args:
        rates: layer → spikes per neuron and time step at inference, in the order of the layers.
    """
    found = []
    for layer, rate in rates.items():
        if rate < SILENT:
            found.append(
                f"spiking layer {layer} is silent: at inference {100 * rate:.2g} % of its neurons fire at a time step, "
                f"below {100 * SILENT:g} %; train it with a lower optimizers.spiking.lr, or from the start with a "
                "greater changes.tdbn_alpha (wider input currents) or a smaller changes.decay_k (less leak)"
            )
        elif rate > SATURATED:
            found.append(
                f"spiking layer {layer} is saturated: at inference {100 * rate:.3g} % of its neurons fire at a time "
                f"step, above {100 * SATURATED:g} %; train it with a lower optimizers.spiking.lr, or from the start "
                "with a smaller changes.tdbn_alpha (narrower input currents) or a greater changes.decay_k (more leak)"
            )
    if rates and not list(rates.values())[-1]:
        found.append(
            "no spike leaves the spiking branch: its output is the same for every image, so equal spikes of an export, "
            "saved energy and equal results with and without the branch prove nothing"
        )
    return found
