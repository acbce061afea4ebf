"""Distribution of neurons over the threads that torch may use."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

BACKWARD = 6  # additions of a backward neuron-step of floats on Zen 4, three times the forward one; integers: about 5
_SHARES = 8  # maximum shares per thread
_STARTS = 2  # another thread pays if its work takes this many times as long as starting it
_FEWEST, _MOST = 1 << 18, 1 << 22  # bounds of the neuron-steps that justify another thread


def over_neurons(kernel: Callable, shape: tuple[int, int], block: int, *arguments: object, additions: int = 2) -> None:
    """Call ``kernel(*arguments, block, low, high)`` over all neurons of (T, N), in several shares per thread.

    A thread that is done takes the next share, so that one delayed thread does not delay the others.

    A kernel must release the interpreter's lock and must not write outside its neurons.

    Args:
        additions: number of numpy's additions that take as long as a neuron-step of the kernel.
    """
    steps, neurons = shape
    blocks = -(-neurons // block)
    amount = steps * neurons * additions // 2
    workers = min(torch.get_num_threads(), blocks, amount // _FEWEST)
    if workers > 1:
        workers = min(workers, amount // worth_a_thread())
    if workers <= 1:
        kernel(*arguments, block, 0, neurons)
        return
    count = min(blocks, workers * _SHARES, max(workers, 2 * amount // worth_a_thread()))
    shares = iter(
        [
            (min(neurons, block * (blocks * i // count)), min(neurons, block * (blocks * (i + 1) // count)))
            for i in range(count)
        ]
    )

    def work() -> None:
        for low, high in shares:  # the iterator of a list gives each share to one thread only
            kernel(*arguments, block, low, high)

    together(work, workers)


@cache
def worth_a_thread() -> int:
    """Neuron-steps of the forward pass that are worth another thread on this machine, measured once in a millisecond.

    How many threads run changes no result. A neuron-step of the forward pass takes as long as two additions of numpy.
    """
    x = np.ones(1 << 14, np.float32)
    addition = _median_seconds(lambda: np.add(x, x, out=x)) / x.size
    start = _median_seconds(lambda: together(lambda: None, 2))
    return _worth(start, addition)


def _worth(start: float, addition: float) -> int:
    """`worth_a_thread` where these are the seconds of starting a thread and of one addition of numpy."""
    return int(min(_MOST, max(_FEWEST, _STARTS * start / (2 * addition))))


def _median_seconds(work: Callable[[], object], rounds: int = 15) -> float:
    """The first rounds wake threads and fill caches."""
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[rounds // 2]


def together(work: Callable[[], None], threads: int) -> None:
    """Call ``work`` once in each of ``threads`` threads, including this one, and wait for all.

    The threads are torch's own if its OpenMP can be found: after a parallel operation torch's threads spin on their
    cores for some milliseconds to wait for the next one, and other threads would have to share the cores.

    Raises:
        Exception: the first one that ``work`` raised.
    """
    parallel = None if _forked else _openmp()
    if parallel is None:
        _pooled(work, threads)
        return
    raised: list[BaseException] = []

    def member(_: object) -> None:
        try:
            work()
        except BaseException as error:  # exceptions cannot pass through OpenMP
            raised.append(error)

    parallel(_MEMBER(member), None, threads, 0)
    if raised:
        raise raised[0]


_forked = False  # True in a forked process, which has none of the parent's OpenMP threads


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _openmp() -> Callable[..., None] | None:
    """``GOMP_parallel`` of the library that this process's torch runs on (libgomp, or another with its interface)."""
    if not sys.platform.startswith("linux"):
        return None
    mapped = {line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()}
    loaded = [Path(path) for path in mapped if Path(path).name.startswith(("libgomp", "libiomp", "libomp"))]
    own = [path for path in loaded if path.is_relative_to(Path(torch.__file__).parent)] or loaded
    if len(own) != 1:  # other packages include their own: any of them may be torch's
        return None
    parallel = getattr(ctypes.CDLL(str(own[0])), "GOMP_parallel", None)
    if parallel is not None:
        parallel.argtypes, parallel.restype = [_MEMBER, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return parallel


def _pooled(work: Callable[[], None], threads: int) -> None:
    # one pool per process: a forked process has none of its parent's threads
    waiting = [_pool(threads - 1, os.getpid()).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for future in waiting:
            future.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ashnets")
