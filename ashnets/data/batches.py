"""The steps of an epoch: whole groups of similar images, distributed over ranks.

"16 pairs a device × 8 devices": one step takes ``batch_size`` pairs (the global batch size) over all ranks. A group
never spans ranks, since its images share one sequence of spiking time steps. The images keep the order of the groups:
for any number of ranks, the shares of a full step, in rank order, are the same images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ashnets.errors import ConfigurationError, DataError


class Share(NamedTuple):
    """The part of one rank in one step: ``indices`` (B,), B a multiple of ``group_size``; consecutive groups."""

    indices: np.ndarray
    group_size: int


def plan_epoch(groups: list[np.ndarray], batch_size: int, ranks: int) -> list[list[Share]]:
    """Distribute the groups of an epoch over steps and ranks; each image occurs once, and no share is empty.

    A full step contains batch_size/φ groups, equally many for each rank. The remaining groups form one more step if
    each rank then gets two images, else they join the last full step; shares then differ by at most one group. A last
    group longer than φ forms a step of its own, with a subgroup for each rank; regular groups are added to it until
    each rank gets two images. If there is no full step to join, the remaining groups are divided in the same way.

    Args:
        groups: index arrays of φ images each; the last one may be longer.
        batch_size: global batch size, pairs of one step over all ranks; a multiple of φ · ranks.
        ranks: devices that train together.

    Returns:
        Steps, each with one share for each rank. All groups of a share have the same size.

    Raises:
        ConfigurationError: batch_size is not a multiple of φ · ranks.
        DataError: fewer images than ranks.
    """
    images = sum(map(len, groups))
    if images < ranks:
        raise DataError(f"{images} images for {ranks} ranks: give at least one image per rank, or start fewer ranks")
    size = len(groups[0])
    alone = len(groups) == 1 or len(groups[-1]) != size
    regular, irregular = (groups[:-1], groups[-1:]) if alone else (groups[:], [])
    if regular and (batch_size < 1 or batch_size % (size * ranks)):
        above = max(1, -(-batch_size // (size * ranks))) * size * ranks
        raise ConfigurationError(
            f"batch_size={batch_size} over {ranks} ranks in groups of {size}: batch_size must be a multiple of "
            f"{size} × {ranks} = {size * ranks}; set batch_size={above}, or change the number of ranks"
        )
    while irregular and regular and sum(map(len, irregular)) < 2 * ranks:
        irregular = [regular.pop(), *irregular]
    full = max(1, batch_size // size)  # groups; batch_size may be below the size of a lone group, which need not be φ
    steps = [regular[i : i + full] for i in range(0, len(regular), full)]
    two_images_each = ranks * (2 if size == 1 else 1)  # in groups
    if steps and len(steps[-1]) < min(full, two_images_each):
        left_over = steps.pop()
        if steps:
            steps[-1] = steps[-1] + left_over
        else:
            irregular = left_over + irregular
    plan = [[Share(part.reshape(-1), size) for part in np.array_split(np.stack(step), ranks)] for step in steps]
    if irregular:
        plan.append([Share(part, len(part)) for part in np.array_split(np.concatenate(irregular), ranks)])
    return plan
