r"""Messages, hops and their energy, from spikes and the tables of a placement.

    messages = Σ_n spikes_n · targets_n        E = messages·E_message + hops_EW·E_EW + hops_NS·E_NS

n are the input neurons of a layer, targets_n the cores that a spike of n reaches. A hop is one link between neighboring
tiles; a message takes |Δcolumn| + |Δrow| of them. A chip without multicast sends every message along its whole way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ashnets.export.placement.chips import Chip
from ashnets.export.placement.placed import Placement


@dataclass(frozen=True)
class Traffic:
    """Messages and hops, sums."""

    messages: int
    east_west: int
    north_south: int

    @property
    def hops(self) -> int:
        """In both directions."""
        return self.east_west + self.north_south

    def picojoules(self, chip: Chip) -> float:
        """Energy of the network, in pJ."""
        counts = {"message": self.messages, "hop_east_west": self.east_west, "hop_north_south": self.north_south}
        return sum(count * chip.energy[key].picojoules for key, count in counts.items())

    def scaled(self, factor: float) -> Traffic:
        """Every count times ``factor``, rounded."""
        return Traffic(round(self.messages * factor), round(self.east_west * factor), round(self.north_south * factor))

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.messages + other.messages, self.east_west + other.east_west, self.north_south + other.north_south
        )


SILENCE = Traffic(0, 0, 0)


def traffic_tables(placement: Placement) -> list[torch.Tensor]:
    """For each layer (C·H·W, 3), float64: messages and hops in both directions of one spike of each input neuron."""
    found = []
    for reached, (east_west, north_south) in zip(placement.reaches, placement.hops, strict=True):
        tables = (reached.of_channels(reached.targets), east_west, north_south)
        found.append(torch.stack([torch.from_numpy(table).double().flatten() for table in tables], dim=1))
    return found
