"""Interleaved timing, A B C A B C …: other load on the machine affects all candidates equally.

A result is always a ratio of two candidates in one run: each round gives one ratio, and the median of the ratios is
reported with their quartiles.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

LEAST_SECONDS = 0.02  # of a sample: a shorter call is repeated


def interleaved(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    least: float = LEAST_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of one call of each candidate, one number for each round, after a warm-up call.

    Args:
        candidates: name → call; its result is freed before the next call.
        rounds: number of samples of each candidate.
        least: minimum duration of a sample in seconds.
        clock: returns the time in seconds.
    """
    calls = {name: _calls_for(call, least, clock) for name, call in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            start = clock()
            for _ in range(calls[name]):
                call()
            seconds[name].append((clock() - start) / calls[name])
    return seconds


def _calls_for(call: Callable[[], object], least: float, clock: Callable[[], float]) -> int:
    elapsed = 0.0
    for _ in range(2):  # the first call may compile
        start = clock()
        call()
        elapsed = clock() - start
        if elapsed >= 10 * least:
            break
    return max(1, math.ceil(least / max(elapsed, 1e-9)))


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """The ratio of each round.

    Args:
        over, under: one number for each round, of the same rounds.
    """
    return [a / b for a, b in zip(over, under, strict=True)]


def quartiles(each: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile; a single number is all three."""
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else [*each] * 3
    return middle, low, high


def exponent(amounts: Sequence[float], costs: Sequence[float]) -> float:
    """p of cost = c·amountᵖ, by least squares of the logarithms; 1 means linear growth."""
    return statistics.linear_regression([math.log(a) for a in amounts], [math.log(c) for c in costs]).slope
