"""Ranges of neurons over the threads that torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

_LEAST = 1 << 15  # neuron-steps that are worth waking a thread for
_SHARES = 8  # of a thread


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ashnets")


def over_neurons(kernel: Callable, shape: tuple[int, int], block: int, *arguments: Any) -> None:
    """Call ``kernel(*arguments, block, low, high)`` over all neurons of (T, N), several shares of blocks a thread.

    A thread that is done takes the next share: after a parallel operation torch's own threads spin on their cores for
    some milliseconds, and what they take from one of ours the others make up for.

    A kernel must release the interpreter's lock and write nothing outside its neurons.
    """
    steps, neurons = shape
    blocks = -(-neurons // block)
    workers = min(torch.get_num_threads(), blocks, max(1, steps * neurons // _LEAST))
    if workers <= 1:
        kernel(*arguments, block, 0, neurons)
        return
    count = min(blocks, workers * _SHARES)
    shares = iter([(min(neurons, block * (blocks * i // count)), min(neurons, block * (blocks * (i + 1) // count)))
                   for i in range(count)])  # fmt: skip

    def work() -> None:
        for low, high in shares:  # a list's iterator gives each share to one thread
            kernel(*arguments, block, low, high)

    # a forked process has no threads of its parent's: the pool belongs to one process
    waiting = [_pool(workers - 1, os.getpid()).submit(work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        for future in waiting:
            future.result()
