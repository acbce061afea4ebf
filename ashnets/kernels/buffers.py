"""Memory for the large results of the CPU kernels, used again after a result is freed.

The system clears every page of a large allocation when it is first written. For spikes and gradients this costs several
times the arithmetic. So a freed result is kept here and serves the next result of about its size.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import psutil
import torch

SMALLEST = 1 << 20  # bytes; the allocator itself keeps what is smaller
_SLACK = 1.25  # a block serves results that are at most so much smaller
_LINE = 64  # bytes of a cache line

_free: list[np.ndarray] = []  # blocks, oldest first
# A result can be freed while its own thread holds the lock: garbage is collected at any allocation.
_lock = threading.RLock()
_thread = threading.local()


@cache
def most_kept() -> int:
    """Bytes of free blocks that stay at most: 512 MiB, and no more than a 32nd of the machine's memory."""
    return int(min(512 << 20, psutil.virtual_memory().total // 32))


def kept() -> int:
    """Bytes of free blocks that wait for the next result."""
    with _lock:
        return sum(block.nbytes for block in _free)


@contextmanager
def unkept() -> Iterator[None]:
    """In this thread, results come from the allocator and nothing is kept: for work that must take little memory."""
    before, _thread.unkept = getattr(_thread, "unkept", False), True
    try:
        yield
    finally:
        _thread.unkept = before


def empty_like(x: torch.Tensor) -> torch.Tensor:
    """An uninitialized contiguous tensor of the shape and type of ``x``, on the CPU."""
    size = x.numel() * x.element_size()
    if size < SMALLEST or getattr(_thread, "unkept", False):
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    block = _take(size)
    start = -block.ctypes.data % _LINE
    owned = block[start : start + size]
    # torch refers to this view until the storage of the tensor, and of all tensors made from it, is freed
    weakref.finalize(owned, _give_back, block).atexit = False
    return torch.from_numpy(owned).view(x.dtype).view(x.shape)


def _take(size: int) -> np.ndarray:
    need = size + _LINE
    with _lock:
        fitting = [i for i, block in enumerate(_free) if need <= block.nbytes <= need * _SLACK]
        if fitting:
            return _free.pop(min(fitting, key=lambda i: _free[i].nbytes))
    return np.empty(need, np.uint8)


def _give_back(block: np.ndarray) -> None:
    with _lock:
        _free.append(block)
        while _free and sum(one.nbytes for one in _free) > most_kept():
            _free.pop(0)
