"""Keep freed memory for the next step when training runs on the CPU."""

from __future__ import annotations

import ctypes
import sys

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks instead of returning them to the system; True if it does.

    By default every large tensor gets new pages, which the system clears at first access; for an elementwise operation
    this costs more than its arithmetic. On systems without glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # one arena for all threads of the backward pass: the others cannot grow to the size of a tensor
    settings = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
    return all(bool(mallopt(name, value)) for name, value in settings.items())
