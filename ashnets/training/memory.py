"""Freed memory is kept for the next step, where training runs on the CPU."""

from __future__ import annotations

import ctypes
import sys

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks and not to give them back; True if it did.

    By default every large tensor is mapped afresh and its pages cleared at first touch, which costs an elementwise
    operation more than its arithmetic. Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # threads of the backward pass share the one arena: others cannot grow to the size of a tensor
    settings = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
    return all(bool(mallopt(name, value)) for name, value in settings.items())
