r"""Exchange cores on the mesh as long as that saves energy of hops.

    E = Σ_{a,b} F_ab · (|x_a − x_b|·E_EW + |y_a − y_b|·E_NS)        F_ab messages from core a to core b

The start is the order of the layers. For each core in turn, the exchange with another core, or with an unused place,
that saves the most is made; this ends when no exchange saves anything. It is a local optimum, the same one every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ashnets.export.placement.chips import Chip
from ashnets.export.placement.placed import Placement

MOST = 512  # cores of a mesh, above which the order stays as it is: time grows with their third power
SWEEPS = 20


def arranged(placement: Placement, spikes: Sequence[np.ndarray]) -> Placement:
    """The placement with its cores exchanged; unchanged above :data:`MOST` cores.

    Args:
        spikes: (H, W) for each layer: spikes at each place of its input.
    """
    chip = placement.chip
    if chip.cores > MOST:
        return placement
    flow = _flow(placement, spikes)
    slots = np.arange(chip.cores)  # of a core, or of an unused place, in the order of the layers
    slots[: placement.cores] = np.concatenate([one.slots for one in placement.populations])
    slots[placement.cores :] = np.setdiff1d(np.arange(chip.cores), slots[: placement.cores])
    slots = exchanged(flow, _distance(chip), slots)
    populations, first = [], 0
    for one in placement.populations:
        populations.append(replace(one, slots=slots[first : first + len(one.slots)]))
        first += len(one.slots)
    return replace(placement, populations=tuple(populations))


def exchanged(flow: np.ndarray, distance: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Places after all exchanges that save something.

    Args:
        flow: (n, n), symmetric.
        distance: (n, n) between places, symmetric, 0 on the diagonal.
        slots: (n,), the place of each core.
    """
    slots, used = slots.copy(), int(np.flatnonzero(flow.any(axis=1)).max(initial=-1)) + 1
    flow = flow[:used, :used]
    apart = distance[slots][:, slots]
    for _ in range(SWEEPS):
        moved = False
        for a in range(used):
            cost = np.einsum("bk,bk->b", flow, apart[:used, :used])
            # cost of a at the place of b and of b at the place of a, less the present one, for all b
            gain = apart[:, :used] @ flow[a] - cost[a]
            # a and b stay as far apart as before
            gain[:used] += flow @ apart[a, :used] - cost + 2 * flow[a] * apart[a, :used]
            b = int(gain.argmin())
            if gain[b] < -1e-9 * max(1.0, float(cost[a])):
                for held in (slots, apart, apart.T):
                    held[[a, b]] = held[[b, a]]
                moved = True
        if not moved:
            break
    return slots


def _flow(placement: Placement, spikes: Sequence[np.ndarray]) -> np.ndarray:
    """(n, n), symmetric: messages between cores, unused places included; channels share a place's spikes evenly."""
    n = placement.chip.cores
    flow = np.zeros((n, n))
    first = 0
    for source, r, fired in zip(placement.populations, placement.reaches, spikes, strict=False):
        share = fired.ravel() / len(source.cores)  # of one channel
        flat = source.cores.reshape(len(source.cores), -1)
        for group in range(r.shape[0]):
            mine = r.group == group
            channels = flat[group * r.channels : (group + 1) * r.channels]
            for channel in _distinct(channels):
                many, cores = channel
                np.add.at(
                    flow,
                    (first + cores[r.place[mine]], first + len(source.slots) + r.core[mine]),
                    many * share[r.place[mine]],
                )
        first += len(source.slots)
    return flow + flow.T


def _distinct(channels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Channels that lie on the same cores together: how many, and the core of each place."""
    rows, many = np.unique(channels, axis=0, return_counts=True)
    return list(zip(many.tolist(), rows, strict=True))


def _distance(chip: Chip) -> np.ndarray:
    columns, rows = chip.tile(np.arange(chip.cores))
    east_west, north_south = (chip.energy[key].picojoules for key in ("hop_east_west", "hop_north_south"))
    return np.abs(columns[:, None] - columns) * east_west + np.abs(rows[:, None] - rows) * north_south
