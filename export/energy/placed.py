"""The placement of a report: chosen by the spikes of its images, with traffic and latency of the counted ones."""

from __future__ import annotations

from typing import Any

import torch

from ashnets.export.counting import Counts
from ashnets.export.graph import SpikingGraph
from ashnets.export.placement.chips import Chip
from ashnets.export.placement.latency import Latency
from ashnets.export.placement.placed import Placement
from ashnets.export.placement.placing import place


def place_by_spikes(graph: SpikingGraph, chip: Chip, mapping: str, spikes: torch.Tensor) -> Placement:
    """Place a graph; the mapping ``best`` is chosen by the spikes of its layers on some images.

    Args:
        spikes: (T, B, C, H, W), input.

    Raises:
        ConfigurationError: it does not fit; the message says what would.
    """
    if mapping != "best":
        return place(graph, chip, mapping)
    outputs, _ = graph.run(spikes)
    fired = [spikes, *(outputs[layer.name] for layer in graph.layers[:-1])]
    return place(graph, chip, mapping, [x.sum((0, 1)).numpy() for x in fired])


def placement_report(placement: Placement, counts: Counts, latency: Latency) -> dict[str, Any]:
    """For JSON: the placement with messages, hops and network energy of an image, and the latency."""
    n = counts.images
    layers: list[dict[str, Any]] = []
    for layer in counts.layers:
        assert layer.traffic is not None  # counted with this placement
        layers.append(
            {
                "name": layer.name,
                "spikes": layer.input_spikes / n,
                "messages": layer.traffic.messages / n,
                "hops_east_west": layer.traffic.east_west / n,
                "hops_north_south": layer.traffic.north_south / n,
                "picojoules": layer.traffic.picojoules(placement.chip) / n,
            }
        )
    total = {key: sum(one[key] for one in layers) for key in layers[0] if key != "name"}
    return {
        "fits": True,
        **placement.to_dict(),
        "traffic": {"unit": "an image", "total": total, "layers": layers},
        "latency": latency.to_dict(),
    }


def not_placed(chip: Chip, reason: str) -> dict[str, Any]:
    """For JSON: why a model is not on the chip."""
    return {"fits": False, "chip": chip.name, "title": chip.title, "reason": reason}
