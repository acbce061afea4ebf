"""Times of training steps of several models, interleaved in one run: times of different runs are not comparable."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ashnets.data.sources.opening import Source
from ashnets.runs import run_class
from ashnets.training.determinism import deterministic
from ashnets.training.means import Means
from ashnets.training.pretrain import Batch
from ashnets.training.recipe import Recipe
from ashnets.training.run import Run


@dataclass(frozen=True)
class Speed:
    """The time of a training step of a model.

    Attributes:
        parameters: number of parameters in pre-training; ``trained`` counts those that at least one phase trains.
        pairs_per_second: of forward, backward and optimizer, without reading images.
        ratio: time for a pair, divided by that of the first model: median of the rounds; ``low`` and ``high`` are the
            minimum and maximum.
    """

    parameters: int
    trained: int
    pairs_per_second: float
    ratio: float
    low: float
    high: float
    rounds: int


def time_steps(recipes: Mapping[str, Recipe], source: Source, rounds: int) -> dict[str, Speed]:
    """Time one step of each phase of each recipe, in ``rounds`` rounds after a warm-up round.

    The time of a model is the mean over its phases, weighted by their epochs. The batch is that of the recipe.
    """
    runs = {name: run_class(recipe)(recipe, source, Path(), False, None) for name, recipe in recipes.items()}
    batches = {name: _batch(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    trained: dict[str, set[str]] = {name: set() for name in runs}
    with deterministic(next(iter(runs.values())).device):
        for turn in range(rounds + 1):
            for name, run in runs.items():
                spent = 0.0
                for phase in run.recipe.phases:
                    run.learner.prepare(phase)
                    trained[name] |= {key for key, p in run.learner.model.named_parameters() if p.requires_grad}
                    start = time.perf_counter()
                    run.learner.optimize([batches[name]], turn, Means())
                    spent += (time.perf_counter() - start) * phase.epochs / run.recipe.epochs
                if turn:
                    seconds[name].append(spent / len(batches[name].image_ids))
    first = seconds[next(iter(runs))]
    found = {}
    for name, run in runs.items():
        sizes = {key: p.numel() for key, p in run.learner.model.named_parameters()}
        ratios = [own / other for own, other in zip(seconds[name], first, strict=True)]
        found[name] = Speed(
            sum(sizes.values()),
            sum(sizes[key] for key in trained[name]),
            1 / statistics.median(seconds[name]),
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            rounds,
        )
    return found


def _batch(run: Run) -> Batch:
    planned = run.images.plan(run.images.random_groups(0))
    return run.images.batches(planned[:1], 0)[0]
