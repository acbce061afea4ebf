"""Ranges of neurons over the threads that torch may use."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

_LEAST = 1 << 18  # neuron-steps that are worth another thread, which takes some 70 µs to wake
_SHARES, _SHARE = 8, 1 << 17  # of a thread, and neuron-steps in each at least: a call takes some µs


def over_neurons(kernel: Callable, shape: tuple[int, int], block: int, *arguments: Any) -> None:
    """Call ``kernel(*arguments, block, low, high)`` over all neurons of (T, N), several shares of blocks a thread.

    A thread that is done takes the next share, so that one which something else holds up does not hold up the rest.

    A kernel must release the interpreter's lock and write nothing outside its neurons.
    """
    steps, neurons = shape
    blocks = -(-neurons // block)
    amount = steps * neurons
    workers = min(torch.get_num_threads(), blocks, max(1, amount // _LEAST))
    if workers <= 1:
        kernel(*arguments, block, 0, neurons)
        return
    count = min(blocks, workers * _SHARES, amount // _SHARE)
    shares = iter(
        [
            (min(neurons, block * (blocks * i // count)), min(neurons, block * (blocks * (i + 1) // count)))
            for i in range(count)
        ]
    )

    def work() -> None:
        for low, high in shares:  # a list's iterator gives each share to one thread
            kernel(*arguments, block, low, high)

    together(work, workers)


def together(work: Callable[[], None], threads: int) -> None:
    """Call ``work`` once in each of so many threads, this one among them, and wait for all.

    They are torch's own where its OpenMP can be found: after a parallel operation torch's threads spin on their cores
    for some milliseconds, waiting for the next one, and threads beside them would have to share the cores.

    Raises:
        Exception: the first that ``work`` raised.
    """
    parallel = None if _forked else _openmp()
    if parallel is None:
        _pooled(work, threads)
        return
    raised: list[BaseException] = []

    def member(_: Any) -> None:
        try:
            work()
        except BaseException as error:  # nothing can be raised through OpenMP
            raised.append(error)

    parallel(_MEMBER(member), None, threads, 0)
    if raised:
        raise raised[0]


_forked = False  # OpenMP's threads are the parent's


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _openmp() -> Any:
    """``GOMP_parallel`` of the library that this process's torch runs on (libgomp, or another with its interface)."""
    if not sys.platform.startswith("linux"):
        return None
    mapped = {line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()}
    loaded = [Path(path) for path in mapped if Path(path).name.startswith(("libgomp", "libiomp", "libomp"))]
    own = [path for path in loaded if path.is_relative_to(Path(torch.__file__).parent)] or loaded
    if len(own) != 1:  # other packages bring theirs: either may be torch's
        return None
    parallel = getattr(ctypes.CDLL(str(own[0])), "GOMP_parallel", None)
    if parallel is not None:
        parallel.argtypes, parallel.restype = [_MEMBER, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return parallel


def _pooled(work: Callable[[], None], threads: int) -> None:
    # the pool belongs to one process: a forked one has no threads of its parent's
    waiting = [_pool(threads - 1, os.getpid()).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for future in waiting:
            future.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ashnets")
