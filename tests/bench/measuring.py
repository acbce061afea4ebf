"""Contestants timed in turn, A B C A B C …: whatever else the machine does meets all of them alike.

A figure is always a ratio of two contestants of one run: each round gives one, and the median of these stands beside
their quartiles.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

LEAST_SECONDS = 0.02  # of a sample: what takes less is called several times in a row


def interleaved(
    contestants: dict[str, Callable[[], object]],
    rounds: int,
    least: float = LEAST_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of one call of each contestant, one number a round; the first call of each is a warm-up.

    Args:
        contestants: name → call; what it returns is dropped before the next one starts.
        rounds: samples of each.
        least: seconds that a sample takes at least.
        clock: seconds.
    """
    calls = {name: _calls_for(call, least, clock) for name, call in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            start = clock()
            for _ in range(calls[name]):
                call()
            seconds[name].append((clock() - start) / calls[name])
    return seconds


def _calls_for(call: Callable[[], object], least: float, clock: Callable[[], float]) -> int:
    elapsed = 0.0
    for _ in range(2):  # the first of two may compile
        start = clock()
        call()
        elapsed = clock() - start
        if elapsed >= 10 * least:
            break
    return max(1, math.ceil(least / max(elapsed, 1e-9)))


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """The ratio of each round.

    Args:
        over, under: one number a round, of rounds that belong together.
    """
    return [a / b for a, b in zip(over, under, strict=True)]


def quartiles(each: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile; of one number three times itself."""
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else [*each] * 3
    return middle, low, high


def exponent(amounts: Sequence[float], costs: Sequence[float]) -> float:
    """p of cost = c·amountᵖ, by least squares of the logarithms: 1 is linear growth."""
    return statistics.linear_regression([math.log(a) for a in amounts], [math.log(c) for c in costs]).slope
