"""Regrouping by similarity at scale: the growth of its cost, and the quality of its groups against exact search.

The embeddings are synthetic: 1,000 cluster centers with noise in 16 dimensions, mapped to 256 dimensions with further
noise. Cost is CPU time over all threads, because other processes affect it little; the time limit is wall-clock time.
The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from ashnets.data.similar import EXACT_UP_TO, Grouping, mean_similarity, random_groups, similar_groups
from ashnets.files import write_json

SIZES = [10_000, 31_000, 100_000, 231_000, 316_000, 1_000_000]
SMALL = [10_000, 31_000, 100_000]
DIMENSIONS, GROUP_SIZE, SEED, CORES = 256, 16, 0, 2
LIMIT_IMAGES, LIMIT_SECONDS = 231_000, 60
LEAST_SHARE = 0.95  # of the similarity of exact search


def mixture(n: int, centers: int = 1000, latent: int = 16) -> np.ndarray:
    """Embeddings of unit length, (n, DIMENSIONS)."""
    rng = np.random.default_rng(SEED)
    middle = rng.standard_normal((centers, latent), dtype=np.float32)
    laid_in = rng.standard_normal((latent, DIMENSIONS), dtype=np.float32) / np.float32(latent**0.5)
    found = np.empty((n, DIMENSIONS), dtype=np.float32)
    for start in range(0, n, 50_000):
        m = min(50_000, n - start)
        points = middle[rng.integers(centers, size=m)] + 0.6 * rng.standard_normal((m, latent), dtype=np.float32)
        rows = points @ laid_in + 0.3 * rng.standard_normal((m, DIMENSIONS), dtype=np.float32)
        found[start : start + m] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def timed(call: Callable[[], Grouping], rounds: int) -> tuple[float, float, Grouping]:
    """CPU seconds and wall-clock seconds, each the minimum of several rounds, and the result of the last round."""
    costs, seconds = [], []
    for _ in range(rounds):
        cost, start = time.process_time(), time.perf_counter()
        found = call()
        costs.append(time.process_time() - cost)
        seconds.append(time.perf_counter() - start)
    return min(costs), min(seconds), found


def benchmark(n: int, exact_to: int) -> dict:
    embeddings = mixture(n)
    rounds = 5 if n <= 31_000 else 2 if n <= 231_000 else 1
    cost, seconds, found = timed(lambda: similar_groups(embeddings, GROUP_SIZE, SEED), rounds)
    row = {
        "n": n,
        "cost": cost,
        "seconds": seconds,
        "index": found.index,
        "similarity": mean_similarity(embeddings, found.groups),
        "random": mean_similarity(embeddings, random_groups(n, GROUP_SIZE, SEED)),
    }
    if EXACT_UP_TO < n <= exact_to:
        exact_cost, _, exact = timed(lambda: similar_groups(embeddings, GROUP_SIZE, SEED, exact_up_to=n), 1)
        row["of_exact_cost"] = cost / exact_cost
        row["of_exact_similarity"] = row["similarity"] / mean_similarity(embeddings, exact.groups)
    return row


def targets(rows: list[dict]) -> dict[str, bool]:
    """Target and measured value as text → whether the target was reached."""
    found = {}
    if len(rows) > 1:
        steepest = max(rows[1:], key=lambda row: row["of_line"])
        found[
            f"cost grows no faster than n·log n from {rows[0]['n']:,}: {steepest['of_line']:.2f} of the line at "
            f"{steepest['n']:,}, less at other sizes"
        ] = steepest["of_line"] <= 1
    if compared := [row for row in rows if "of_exact_similarity" in row]:
        worst = min(compared, key=lambda row: row["of_exact_similarity"])
        found[
            f"at least {LEAST_SHARE:.0%} of exact search's similarity: {worst['of_exact_similarity']:.1%} at "
            f"{worst['n']:,}, more at other sizes up to {compared[-1]['n']:,}"
        ] = worst["of_exact_similarity"] >= LEAST_SHARE
    for row in rows:
        if row["n"] == LIMIT_IMAGES:
            found[f"{LIMIT_IMAGES:,} under {LIMIT_SECONDS} s: {row['seconds']:.1f} s"] = row["seconds"] < LIMIT_SECONDS
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images, in ascending order")
    parser.add_argument("--small", action="store_const", dest="sizes", const=SMALL, help=f"only {SMALL}")
    parser.add_argument("--exact-to", type=int, default=LIMIT_IMAGES, help="largest n for exact search")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    faiss.omp_set_num_threads(CORES)
    rows = []
    for n in options.sizes:
        row = benchmark(n, options.exact_to)
        first = rows[0] if rows else row
        row["of_line"] = row["cost"] / first["cost"] / (n * np.log(n) / (first["n"] * np.log(first["n"])))
        rows.append(row)
        print(f"  {n:,} done", file=sys.stderr)
    table = Table(title=f"{DIMENSIONS} dimensions, φ = {GROUP_SIZE}, seed {SEED}, {CORES} threads; synthetic mixture")
    for name in ("n", "cost / n·log n", "cost / exact", "similarity", "of exact's", "random's"):
        table.add_column(name, justify="right")
    table.add_column("search")
    for row in rows:
        cost = f"{row['of_exact_cost']:.2f}" if "of_exact_cost" in row else ""
        share = f"{row['of_exact_similarity']:.1%}" if "of_exact_cost" in row else ""
        table.add_row(
            f"{row['n']:,}",
            f"{row['of_line']:.2f}",
            cost,
            f"{row['similarity']:.3f}",
            share,
            f"{row['random']:.3f}",
            row["index"],
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    reached = targets(rows)
    for target, met in reached.items():
        print(f"{'pass' if met else 'FAIL'}  {target}")
    if options.json:
        write_json(options.json, {"rows": rows, "targets": reached})
    return int(not all(reached.values()))


if __name__ == "__main__":
    sys.exit(main())
