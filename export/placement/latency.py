r"""How long a step and an image take on a chip whose cores wait for each other at the end of each step.

    sending(core)   = neurons·t_neuron + spikes·t_spike + messages·t_message_out
    receiving(core) = messages·t_message_in + synaptic operations·t_synapse
    step            = max over all cores of both + barrier

As in SANA-FE's simple timing model, sending and receiving overlap, and the network is never congested. Every neuron is
updated in every step; SANA-FE leaves out neurons to which nothing happens, so its steps after the last input spike can
be shorter. A layer fires one step after the layer before it, so an image takes T + layers steps; a stream of
images needs T for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ashnets.errors import InputError
from ashnets.export.placement.placed import Placement


@dataclass(frozen=True)
class Latency:
    """Times in ns; means over the images.

    Attributes:
        images: how many were timed.
        steps: T + layers, from the first input spike to the last spike of the last layer.
        image: of one image.
        longest_image: the slowest image.
        step: mean over the steps.
        longest_step: the slowest step of any image.
        by_step: mean of each step.
        busiest: population whose cores set the pace in most steps.
    """

    images: int
    steps: int
    image: float
    longest_image: float
    step: float
    longest_step: float
    by_step: tuple[float, ...]
    busiest: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"unit": "ns", **vars(self), "by_step": list(self.by_step)}


class Clock:
    """Times images on a placement, batch by batch.

    Args:
        placement: of the graph whose spikes are added.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        ns = {key: one.nanoseconds for key, one in placement.chip.latency.items()}
        self._idle, self._sending, self._receiving = [], [], []
        for i, one in enumerate(placement.populations):
            self._idle.append(float(one.neurons.max()) * ns["neuron"] if i else 0.0)
            per_core = torch.from_numpy(one.neurons).double() * (ns["neuron"] if i else 0.0)
            if i == len(placement.reaches):  # the last layer sends nothing that is counted
                cost = torch.full((one.cores.size,), ns["spike"], dtype=torch.float64)
            else:
                r = placement.reaches[i]
                targets = torch.from_numpy(r.of_channels(r.targets)).double().flatten()
                cost = targets * ns["message_out"] + (ns["spike"] if i else 0.0)
                at = torch.from_numpy(np.stack([r.core, r.row]))
                values = ns["message_in"] + torch.from_numpy(r.synapses).double() * ns["synapse"]
                size = (r.cores, math.prod(r.shape))
                self._receiving.append(torch.sparse_coo_tensor(at, values, size, check_invariants=True).coalesce())
            self._sending.append((torch.from_numpy(one.cores).flatten(), cost, per_core))
        self._images: list[torch.Tensor] = []  # (steps, B) each: the time of each step, without barrier
        self._pace = torch.zeros(len(placement.populations), dtype=torch.int64)

    def add(self, spikes: torch.Tensor, outputs: dict[str, torch.Tensor]) -> None:
        """Time images that each start from a reset state.

        Args:
            spikes: (T, B, C, H, W), input.
            outputs: of :meth:`SpikingGraph.run` on them.
        """
        time, batch = spikes.shape[:2]
        populations = [spikes, *outputs.values()]
        layers = len(populations) - 1
        busy = torch.tensor(self._idle, dtype=torch.float64).repeat(time + layers, batch, 1)
        for i, fired in enumerate(populations):
            flat = fired.flatten(0, 1).flatten(1).double()  # (T·B, N)
            cores, cost, per_core = self._sending[i]
            sent = torch.zeros(len(flat), len(per_core), dtype=torch.float64).index_add_(1, cores, flat * cost)
            sending = (sent + per_core).amax(1).view(time, batch)
            busy[i : i + time, :, i] = torch.maximum(busy[i : i + time, :, i], sending)
            if i < layers:
                r = self._placement.reaches[i]
                places = flat.view(len(flat), r.shape[0], r.channels, -1).sum(2).flatten(1)  # (T·B, groups·H·W)
                received = torch.sparse.mm(self._receiving[i], places.T).amax(0).view(time, batch)
                busy[i : i + time, :, i + 1] = torch.maximum(busy[i : i + time, :, i + 1], received)
        longest, which = busy.max(2)
        self._images.append(longest)
        self._pace += torch.bincount(which.flatten(), minlength=len(self._pace))

    def result(self) -> Latency:
        """The times so far.

        Raises:
            InputError: nothing was timed.
        """
        if not self._images:
            raise InputError("nothing was timed: add() images first")
        placement = self._placement
        steps = torch.cat(self._images, 1) + placement.chip.barrier_ns(placement.tiles)  # (steps, images)
        return Latency(
            images=steps.shape[1],
            steps=steps.shape[0],
            image=float(steps.sum(0).mean()),
            longest_image=float(steps.sum(0).max()),
            step=float(steps.mean()),
            longest_step=float(steps.max()),
            by_step=tuple(steps.mean(1).tolist()),
            busiest=placement.populations[int(self._pace.argmax())].name,
        )
