r"""Batches of similar images: Retrieve(Pic_k, φ) as a permutation (section III-A.2).

Each epoch every image occurs once ("only change the order"); consecutive runs of φ are neighbours in the space of ITC
image embeddings, in descending similarity to the first of their group.
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 8  # neighbours looked up for each place in a group: many are taken by the time a group is filled


def nearest(queries: np.ndarray, embeddings: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest inner products of each query, (Q, k), exact; FAISS where installed, else torch."""
    try:
        import faiss
    except ImportError:
        import torch

        scores = torch.from_numpy(queries) @ torch.from_numpy(embeddings).T
        return scores.topk(k, dim=1).indices.numpy()
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    return index.search(np.ascontiguousarray(queries, dtype=np.float32), k)[1]


def similar_groups(embeddings: np.ndarray, group_size: int, seed: int) -> list[np.ndarray]:
    """Partition n images into groups of neighbours.

    Args:
        embeddings: (n, D), of unit length.
        group_size: φ.
        seed: of the order in which images open a group, and of the order of the groups.

    Returns:
        Index arrays of length φ; the last one also takes the remainder, n mod φ (all images when n < φ).
    """
    embeddings = np.asarray(embeddings, dtype=np.float32)
    rng = np.random.default_rng(seed)
    n = len(embeddings)
    remainder = n % group_size if n >= group_size else n
    pool = rng.permutation(n)
    groups: list[np.ndarray] = []
    while len(pool) >= group_size:
        k = min(len(pool), NEIGHBOURS * group_size)
        neighbours = pool[nearest(embeddings[pool], embeddings[pool], k)]
        free = np.zeros(n, dtype=bool)
        free[pool] = True
        left = len(pool)
        for opener, row in zip(pool, neighbours, strict=True):
            if not free[opener] or left < group_size:
                continue
            taken = row[free[row] & (row != opener)][: group_size - 1]
            if len(taken) < group_size - 1:
                continue  # its neighbourhood is used up: it waits for the next, smaller pool
            group = np.concatenate([[opener], taken])
            free[group] = False
            left -= group_size
            groups.append(group)
        pool = pool[free[pool]]
    groups = [groups[i] for i in rng.permutation(len(groups))]
    if remainder and groups:
        groups[-1] = np.concatenate([groups[-1], pool])
    elif remainder:
        groups = [pool]
    return groups


def random_groups(n: int, group_size: int, seed: int) -> list[np.ndarray]:
    """The same partition at random: the first phase, and the "Base" row of Fig. 5."""
    order = np.random.default_rng(seed).permutation(n)
    if n < group_size:
        return [order] if n else []
    whole = n // group_size * group_size
    groups = list(order[:whole].reshape(-1, group_size))
    groups[-1] = np.concatenate([groups[-1], order[whole:]])
    return groups


def batches_of(groups: list[np.ndarray], images: int) -> list[tuple[np.ndarray, int]]:
    """Whole groups to batches of at most ``images``, each with its group size; a longer last group stands alone.

    Returns:
        (indices, φ of this batch) pairs; the indices of a group are consecutive.
    """
    if not groups:
        return []
    size = len(groups[0])
    per_batch = max(1, images // size)
    regular = [g for g in groups if len(g) == size]
    batches = [
        (np.concatenate(regular[i : i + per_batch]), size) for i in range(0, len(regular), per_batch)
    ]
    return batches + [(g, len(g)) for g in groups if len(g) != size]


def mean_similarity(embeddings: np.ndarray, groups: list[np.ndarray]) -> float:
    """Mean inner product between different images of one group, over all groups."""
    total, pairs = 0.0, 0
    for group in groups:
        block = embeddings[group] @ embeddings[group].T
        total += float(block.sum() - np.trace(block))
        pairs += len(group) * (len(group) - 1)
    return total / max(pairs, 1)
