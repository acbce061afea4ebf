"""Peak memory of a call: the increase of resident memory, measured in a separate process.

torch does not record a peak on CPUs, and its profiler does not see the buffers of numpy, compiled kernels and
convolutions. The high-water mark of Linux (VmHWM in /proc) includes all of them. In the separate process, glibc maps
each block above 64 KiB separately and unmaps it when it is freed, so the error of the mark is a few pages for each
block.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
MARK = "result: "


def peak_of(call: Callable[[], object]) -> int:
    """Peak increase of memory in bytes during ``call``; run a small version of it once before.

    Outside :func:`apart`, freed blocks may be kept and reused, which hides a part of the increase.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    CLEAR.write_text("5")  # resets the high-water mark to the current resident memory
    before = _kibibytes("VmRSS")
    result = call()
    peak = _kibibytes("VmHWM")
    del result
    return 1024 * (peak - before)


def _kibibytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])


def apart(function: FunctionType, *arguments: Any) -> Any:
    """Call a function of a module of this folder in a separate process; arguments and result are sent as JSON."""
    module = Path(function.__code__.co_filename).stem
    done = subprocess.run(
        [sys.executable, __file__, module, function.__name__, json.dumps(arguments)],
        env={**os.environ, **ALLOCATOR},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.rpartition(MARK)[2])


if __name__ == "__main__":
    module, name, packed = sys.argv[1:]
    print(MARK + json.dumps(getattr(importlib.import_module(module), name)(*json.loads(packed))))
