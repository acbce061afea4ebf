r"""Groups of similar images: Retrieve(Pic_k, φ) as a permutation (section III-A.2).

In each epoch, every image occurs once ("only change the order"). Each φ consecutive images are neighbors in the space
of ITC image embeddings, in descending similarity to the first image of their group. In random order, each free image
opens a group and takes its φ - 1 nearest free neighbors.
"""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ashnets.errors import InputError

if TYPE_CHECKING:
    import faiss

EXACT_UP_TO = 10_000  # images searched at once: above, k-means cells of this size (the cost then grows like n log n)
FINDS = 4  # neighbors searched for each place in a group: some are taken by other groups
ROUND = 8  # openers searched at once claim at most 1/ROUND of the pool, so that few want the same images
BLOCK = 1 << 24  # similarities, or numbers of embeddings, that torch holds at once (64 or 128 MB)
SPARE = 8  # additional neighbors that FAISS returns, to check that none is missing
GPU_ROOM = 1 << 30  # bytes that must be free on a GPU: without memory, parts of FAISS end the process


@dataclass(frozen=True)
class Grouping:
    """Groups of one epoch, and the search that found them, as a phrase for the log."""

    groups: list[np.ndarray]
    index: str


def similar_groups(embeddings: np.ndarray, group_size: int, seed: int, *, exact_up_to: int = EXACT_UP_TO) -> Grouping:
    """Partition n images into groups of neighbors.

    Above ``exact_up_to`` images the search is an inverted file with one cell probed: k-means cells, exact search inside
    each. Half of a cell is grouped; the other halves meet again in the cells of the next, smaller round. Without FAISS
    the search is exact at every size, by torch, in blocks. The result does not depend on the number of threads.

    Args:
        embeddings: (n, D), of unit length.
        group_size: φ.
        seed: of the order in which images open a group, of the cells, and of the order of the groups.
        exact_up_to: images that are searched at once.

    Returns:
        Index arrays of length φ; the last one also takes the remainder, n mod φ (all images when n < φ).

    Raises:
        InputError: an embedding is not finite.
    """
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    damaged = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(damaged):
        raise InputError(
            f"{len(damaged):,} of {len(embeddings):,} embeddings contain NaN or infinity, the first at row "
            f"{damaged[0]}: the model is damaged, go back to an earlier checkpoint"
        )
    rng = np.random.default_rng(seed)
    n = len(embeddings)
    limit = max(exact_up_to, 8 * group_size)  # the largest cell then has room for several groups
    groups: list[np.ndarray] = []
    pool, rounds = np.arange(n), 0
    while len(pool) > limit and has_faiss():
        rests = []
        for cell in _cells(embeddings[pool], limit, int(rng.integers(2**31))):
            made, rest = _take(embeddings, pool[cell], group_size, max(group_size, len(cell) // 2), rng)
            groups += made
            rests.append(rest)
        pool, rounds = np.concatenate(rests), rounds + 1
    index = f"exact search over {len(pool):,}"
    if rounds:
        index = f"IVF over {n:,}, {-(-n // limit):,} cells, 1 probed, {rounds} rounds, then {index}"
    elif not has_faiss():
        index += " in torch: faiss is not installed"
    made, last = _take(embeddings, pool, group_size, group_size, rng)
    groups += made
    if len(last) > 1:
        last[1:] = last[1:][nearest(embeddings[last[:1]], embeddings[last[1:]], len(last) - 1)[1][0]]
    if len(last) == group_size:
        groups.append(last)
    groups = [groups[i] for i in rng.permutation(len(groups))]
    if len(last) not in (0, group_size):
        groups.append(last)
    return Grouping(groups, index)


def _take(
    embeddings: np.ndarray, pool: np.ndarray, group_size: int, keep: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """Groups from the pool until fewer than φ more than ``keep`` are left; the groups, and what is left."""
    queue = rng.permutation(pool)  # the openers to come; all of it is free
    free = np.zeros(len(embeddings), dtype=bool)
    free[pool] = True
    groups: list[np.ndarray] = []
    most = len(queue)
    while (left := len(queue)) >= keep + group_size:
        openers = queue[: max(1, min(most, left // (ROUND * group_size)))]
        finds = queue[nearest(embeddings[openers], embeddings[queue], min(left, FINDS * group_size))[1]]
        waiting, before = [], len(groups)
        for opener, row in zip(openers, finds, strict=True):
            if not free[opener]:
                continue
            taken = row[free[row] & (row != opener)][: group_size - 1]
            if len(taken) < group_size - 1 or left < keep + group_size:
                waiting.append(opener)  # others of this round were faster: it comes again at the end of the queue
                continue
            group = np.concatenate([[opener], taken])
            free[group] = False
            left -= group_size
            groups.append(group)
        most = 2 * (len(groups) - before)  # among many equal images all openers find the same few
        queue = np.concatenate([queue[len(openers) :], np.array(waiting, dtype=queue.dtype)])
        queue = queue[free[queue]]
    return groups, queue


def has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


def nearest(
    queries: np.ndarray, embeddings: np.ndarray, k: int, index: faiss.IndexFlat | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest inner products of each query and their rows, (Q, k) both; equal products in the order of the rows.

    Products and order are those of `ashnets.ties`: on every machine the same, and the best k the first of more.
    FAISS, if installed, finds candidates, on a GPU if it can; where rounding may hide a candidate, all embeddings are
    compared.

    Args:
        queries: (Q, D), float32.
        embeddings: (n, D), float32, of unit length.
        index: a flat FAISS index of the embeddings, where there is one.
    """
    import torch

    from ashnets.ties import best, products, products_of_own

    count, width = embeddings.shape
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)

    def put(places: np.ndarray, found: torch.Tensor, candidates: np.ndarray | None = None) -> None:
        order = best(found, k)
        scores[places] = found.gather(1, order).numpy()
        rows[places] = order if candidates is None else np.take_along_axis(candidates, order.numpy(), 1)

    rest = np.arange(len(queries))
    if has_faiss() and (reach := k + SPARE) < count // 4:
        rough, candidates = _faiss(queries, embeddings, reach, index)
        # Rounding of float32's sums, in any order, and of the grid: twice, for both of two products that are compared.
        slack = (width + 2) * 2.0**-22 * np.linalg.norm(queries, axis=1)
        sure = rough[:, k - 1] - rough[:, -1] > slack
        for part in _parts(np.flatnonzero(sure), reach * width):
            chosen = np.sort(candidates[part], 1)
            own = products_of_own(torch.from_numpy(queries[part]), torch.from_numpy(embeddings[chosen]))
            put(part, own, chosen)
        rest = np.flatnonzero(~sure)
    for part in _parts(rest, count):
        put(part, products(torch.from_numpy(queries[part]), torch.from_numpy(embeddings)))
    return scores, rows


def _parts(places: np.ndarray, each: int) -> list[np.ndarray]:
    """In parts of at most `BLOCK` numbers, of which a place takes ``each``."""
    size = max(1, BLOCK // each)
    return [places[start : start + size] for start in range(0, len(places), size)]


def _faiss(
    queries: np.ndarray, embeddings: np.ndarray, k: int, index: faiss.IndexFlat | None
) -> tuple[np.ndarray, np.ndarray]:
    """The largest products by FAISS, and their rows; an index that was given stays where it is."""
    import faiss
    import torch

    if index is None:
        index = faiss.IndexFlatIP(embeddings.shape[1])
        index.add(embeddings)
        if (gpu := _gpu()) is not None and torch.cuda.mem_get_info()[0] > GPU_ROOM:
            with contextlib.suppress(RuntimeError):  # more neighbors than its kernels find, or too little memory
                return faiss.index_cpu_to_gpu(gpu, torch.cuda.current_device(), index).search(queries, k)
    return index.search(queries, k)


@cache
def _gpu() -> Any:
    """The resources of FAISS for this process on its GPU; None without a GPU, or in a FAISS that is built without."""
    import faiss
    import torch

    if not (torch.cuda.is_available() and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()):
        return None
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_ROOM // 8)  # it would take 1.5 GiB from the training
    return resources


def _cells(embeddings: np.ndarray, limit: int, seed: int) -> list[np.ndarray]:
    """Rows of each k-means cell, of ``limit`` images on average; a cell twice as large is cut into equal parts."""
    import faiss

    count = -(-len(embeddings) // limit)
    kmeans = faiss.Kmeans(embeddings.shape[1], count, niter=8, seed=seed, spherical=True, min_points_per_centroid=1)
    kmeans.train(embeddings)
    nearest_center = kmeans.assign(embeddings)[1]
    members = np.split(np.argsort(nearest_center, kind="stable"), np.cumsum(np.bincount(nearest_center))[:-1])
    return [part for cell in members if len(cell) for part in np.array_split(cell, -(-len(cell) // (2 * limit)))]


def random_groups(n: int, group_size: int, seed: int) -> list[np.ndarray]:
    """The same partition at random: the first phase, and the "Base" row of Fig. 5."""
    order = np.random.default_rng(seed).permutation(n)
    if n < group_size:
        return [order] if n else []
    whole = n // group_size * group_size
    groups = list(order[:whole].reshape(-1, group_size))
    groups[-1] = np.concatenate([groups[-1], order[whole:]])
    return groups


def mean_similarity(embeddings: np.ndarray, groups: list[np.ndarray]) -> float:
    """Mean inner product between different images of one group, over all groups."""
    total, pairs = 0.0, 0
    for group in groups:
        block = embeddings[group] @ embeddings[group].T
        total += float(block.sum() - np.trace(block))
        pairs += len(group) * (len(group) - 1)
    return total / max(pairs, 1)
