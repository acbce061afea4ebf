r"""Firing rates of a layer's neurons.

    r_i = spikes of neuron i / steps that it was seen        (over all images: images · T steps)

The mean alone hides what matters to hardware and to training: a few neurons may send most spikes, while others never
fire. So the mean is reported with the 95th percentile over neurons and the shares of silent and saturated neurons. The
mean is the usual firing rate of a layer: its spikes divided by its neurons and steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ashnets.model.firing import SATURATED


@dataclass(frozen=True)
class FiringRates:
    """Firing rates over the neurons of one layer, in spikes for each neuron and step.

    Attributes:
        mean: over neurons.
        p95: 95th percentile over neurons: the smallest rate that 95 % of them do not exceed.
        silent: share of the neurons that never fired.
        saturated: share of the neurons that fired at more than 90 % of the steps.
    """

    mean: float
    p95: float
    silent: float
    saturated: float


def firing_rates(spikes: torch.Tensor, steps: int) -> FiringRates:
    """Compute rates from the spikes of each neuron.

    Args:
        spikes: whole numbers, any shape: one entry for each neuron, summed over images and steps.
        steps: number of counted steps of each neuron, over all images.
    """
    each = spikes.flatten().double() / steps
    rank = -(-19 * each.numel() // 20)  # ⌈0.95 n⌉ in integers, since 0.95 has no exact float
    return FiringRates(
        mean=float(each.mean()),
        p95=float(each.sort().values[rank - 1]),
        silent=float((each == 0).double().mean()),
        saturated=float((each > SATURATED).double().mean()),
    )
