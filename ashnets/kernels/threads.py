"""Ranges of neurons over the threads that torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch

_LEAST = 1 << 15  # neuron-steps that are worth waking a thread for


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ashnets")


def over_neurons(kernel: Callable, shape: tuple[int, int], block: int, *arguments: Any) -> None:
    """Call ``kernel(*arguments, block, low, high)`` over all neurons of (T, N), a share of the blocks on each thread.

    A kernel must release the interpreter's lock and write nothing outside its neurons.
    """
    steps, neurons = shape
    blocks = -(-neurons // block)
    workers = min(torch.get_num_threads(), blocks, max(1, steps * neurons // _LEAST))
    if workers <= 1:
        kernel(*arguments, block, 0, neurons)
        return
    bounds = [min(neurons, block * (blocks * i // workers)) for i in range(workers + 1)]
    # a forked process has no threads of its parent's: the pool belongs to one process
    waiting = [
        _pool(workers - 1, os.getpid()).submit(kernel, *arguments, block, low, high)
        for low, high in pairwise(bounds[1:])
    ]
    try:
        kernel(*arguments, block, bounds[0], bounds[1])
    finally:
        for future in waiting:
            future.result()
