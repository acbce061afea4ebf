"""What the compiled kernels share: how numba compiles them, how many neurons a block holds, tensors as its arrays."""

from __future__ import annotations

import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit

from ashnets.files import has_home

log = logging.getLogger("ashnets.kernels")

_BLOCK = 2048  # neurons at most: a step's rows of all arrays stay in the first-level cache
_LEVEL_2 = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")  # Linux's; other systems have none
_NONE = np.zeros(1, np.float32)


def kernel(function: Any) -> Any:
    """Compiled as it is written: every product and every sum rounds."""
    return _compiled(function)


def fused(function: Any) -> Any:
    """A product and the sum behind it may round once."""
    return _compiled(function, fastmath={"contract"})


def _compiled(function: Any, **options: Any) -> Any:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        if _can_be_kept():
            return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder that it may write to
        pass
    _say_not_kept()
    return njit(**options)(function)


def _can_be_kept() -> bool:
    """False where numba would make a folder of the name ``~`` in the current one."""
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    beside = Path(__file__).parent / "__pycache__"
    return bool(chosen) or has_home() or os.access(beside if beside.exists() else beside.parent, os.W_OK)


@cache
def _say_not_kept() -> None:
    log.warning(
        "the compiled spiking kernels cannot be kept on disk, so that each process compiles its own: "
        "let NUMBA_CACHE_DIR name a folder that may be written to"
    )


@cache
def _second_level() -> int:
    """Bytes of the second-level cache; 1 MiB where the system does not say."""
    try:
        kibibytes = re.fullmatch(r"(\d+)K", _LEVEL_2.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError):
        kibibytes = None
    return max(1 << 20, int(kibibytes[1]) << 10 if kibibytes else 0)


def block_of(steps: int) -> int:
    """Neurons that go through all steps together: their h, in float32, fills half of the second-level cache."""
    return int(min(_BLOCK, max(64, _second_level() // 8 // steps // 64 * 64)))


@kernel
def rows(steps, neurons):
    """An uninitialized (steps, neurons) in float32 that begins at a cache line: half of numba's own lie across two."""
    room = np.empty(steps * neurons + 16, np.float32)
    first = (-room.ctypes.data % 64) // 4
    return room[first : first + steps * neurons].reshape(steps, neurons)


def array(x: torch.Tensor | None) -> np.ndarray:
    """The same memory, if it is dense; bfloat16 as uint16, None as an array that is not read."""
    if x is None:
        return _NONE
    x = x.detach().contiguous()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
