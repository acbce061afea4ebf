"""Common parts of the compiled kernels: compilation by numba, the block size, and tensors as NumPy arrays."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numba import njit

from ashnets.files import has_home

log = logging.getLogger("ashnets.kernels")
Function = TypeVar("Function", bound=Callable)

_BLOCK = 2048  # neurons at most: one step of all arrays stays in the first-level cache
_LEVEL_2 = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")  # exists on Linux only
_NONE = np.zeros(1, np.float32)


def kernel(function: Function) -> Function:
    """Compile a function without fusing: every product and every sum is rounded."""
    return _compiled(function)


def fused(function: Function) -> Function:
    """Compile a function in which a product and the following sum may be rounded once."""
    return _compiled(function, fastmath={"contract"})


def _compiled(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        if _can_be_kept():
            return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder to write to
        pass
    _say_not_kept()
    return njit(**options)(function)


def _can_be_kept() -> bool:
    """False if numba would create a folder named ``~`` in the current one."""
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    beside = Path(__file__).parent / "__pycache__"
    return bool(chosen) or has_home() or os.access(beside if beside.exists() else beside.parent, os.W_OK)


@cache
def _say_not_kept() -> None:
    log.warning(
        "the compiled spiking kernels cannot be kept on disk, so each process compiles them again: "
        "set NUMBA_CACHE_DIR to a folder in which you may write"
    )


@cache
def _second_level() -> int:
    """Size of the second-level cache in bytes; 1 MiB if the system does not report it."""
    try:
        kibibytes = re.fullmatch(r"(\d+)K", _LEVEL_2.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError):
        kibibytes = None
    return max(1 << 20, int(kibibytes[1]) << 10 if kibibytes else 0)


def block_of(steps: int) -> int:
    """Number of neurons that run through all steps together: their h, in float32, fills half the second-level cache."""
    return int(min(_BLOCK, max(64, _second_level() // 8 // steps // 64 * 64)))


@kernel
def rows(steps, neurons):
    """An uninitialized float32 array (steps, neurons) that starts at a cache line; numba aligns only to 32 bytes."""
    room = np.empty(steps * neurons + 16, np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + steps * neurons].reshape(steps, neurons)


def array(x: torch.Tensor | None) -> np.ndarray:
    """The tensor as an array, without a copy if contiguous; bfloat16 as uint16, None as an array that is not read."""
    if x is None:
        return _NONE
    if x.requires_grad:
        x = x.detach()
    if not x.is_contiguous():
        x = x.contiguous()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
