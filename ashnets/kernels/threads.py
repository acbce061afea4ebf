"""Distribution of neurons over the threads that torch may use."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ashnets.kernels.compiling import kernel
from ashnets.kernels.regions import in_shares

BACKWARD = 6  # additions of a backward neuron-step of floats on Zen 4, three times the forward one; integers: about 5
_SHARES = 8  # maximum shares per thread
_STARTS = 2  # another thread pays if its work takes this many times as long as starting it
_FEWEST, _MOST = 1 << 15, 1 << 22  # bounds of the neuron-steps that justify another thread; torch's own limit is 2^15


def over_neurons(region: Callable, shape: tuple[int, int], block: int, *arguments: object, additions: int = 2) -> None:
    """Run the kernel of ``region`` over all neurons of (T, N), in several shares per thread.

    The threads are torch's own if its OpenMP can be found: after a parallel operation torch's threads spin on their
    cores for some milliseconds to wait for the next one, and other threads would have to share the cores.

    Args:
        region: a compiled function that passes all its arguments to :func:`ashnets.kernels.regions.in_shares`. The
            kernel must not write outside its neurons.
        additions: number of numpy's additions that take as long as a neuron-step of the kernel.

    Raises:
        MemoryError: there is no memory for what the kernel needs.
    """
    steps, neurons = shape
    blocks = -(-neurons // block)
    amount = steps * neurons * additions // 2
    workers = min(torch.get_num_threads(), blocks, amount // _FEWEST)
    if workers > 1:
        workers = min(workers, amount // worth_a_thread())
    if workers <= 1:
        region(0, 1, 1, block, 0, neurons, *arguments)
        return
    count = min(blocks, workers * _SHARES, max(workers, 2 * amount // worth_a_thread()))
    _run(region, workers, count, block, neurons, arguments)


def _run(region: Callable, workers: int, count: int, block: int, neurons: int, arguments: Sequence[object]) -> None:
    """In OpenMP's threads, or in those of a pool where there is no OpenMP."""
    parallel = 0 if _forked else _openmp()
    if parallel:
        region(parallel, workers, count, block, 0, neurons, *arguments)
    else:
        _pooled(region, workers, count, block, neurons, arguments)


def _pooled(region: Callable, workers: int, count: int, block: int, neurons: int, arguments: Sequence[object]) -> None:
    # one pool per process: a forked process has none of its parent's threads
    edges = [min(neurons, block * (-(-neurons // block) * i // count)) for i in range(count + 1)]
    waiting = [
        _pool(workers, os.getpid()).submit(region, 0, 1, 1, block, low, high, *arguments)
        for low, high in pairwise(edges)
    ]
    wait(waiting)  # also after an error: the others still write to the arguments
    for future in waiting:
        future.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="ashnets")


@cache
def worth_a_thread() -> int:
    """Neuron-steps of the forward pass that are worth another thread on this machine, measured once in a millisecond.

    How many threads run changes no result. A neuron-step of the forward pass takes as long as two additions of numpy.
    """
    x = np.ones(1 << 14, np.float32)
    addition = _median_seconds(lambda: np.add(x, x, out=x)) / x.size
    start = _median_seconds(lambda: start_threads(2))
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


@kernel
def _nothing(block, low, high):
    pass


@kernel
def _nothing_shared(parallel, workers, count, block, low, high):
    in_shares(parallel, workers, count, block, low, high, _nothing, ())


def start_threads(workers: int) -> None:
    """A region in which nothing is computed; it also compiles the region."""
    _run(_nothing_shared, workers, workers, 1, workers, ())


_forked = False  # True in a forked process, which has none of the parent's OpenMP threads


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _openmp() -> int:
    """Address of ``GOMP_parallel`` of the library that this process's torch runs on (libgomp, or another with its
    interface); 0 if there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    mapped = {line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()}
    loaded = [Path(path) for path in mapped if Path(path).name.startswith(("libgomp", "libiomp", "libomp"))]
    own = [path for path in loaded if path.is_relative_to(Path(torch.__file__).parent)] or loaded
    if len(own) != 1:  # other packages include their own: any of them may be torch's
        return 0
    parallel = getattr(ctypes.CDLL(str(own[0])), "GOMP_parallel", None)
    return 0 if parallel is None else ctypes.cast(parallel, ctypes.c_void_p).value or 0
