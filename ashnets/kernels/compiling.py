"""What the compiled kernels share: how numba compiles them, how many neurons a block holds, tensors as its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit

_CACHE = 1 << 17  # float32 numbers of a block's h, 512 KiB: a second-level cache holds them
_NONE = np.zeros(1, np.float32)


def kernel(function: Any) -> Any:
    """Compiled as it is written: every product and every sum rounds."""
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def fused(function: Any) -> Any:
    """A product and the sum behind it may round once."""
    return njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function)


def block_of(steps: int) -> int:
    """Neurons that go through all steps together."""
    return int(min(1024, max(64, _CACHE // steps // 64 * 64)))


def array(x: torch.Tensor | None) -> np.ndarray:
    """The same memory, if it is dense; bfloat16 as uint16, None as an array that is not read."""
    if x is None:
        return _NONE
    x = x.detach().contiguous()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
