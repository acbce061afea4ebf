"""Peak memory of a call: resident pages above those before it, in a process of its own.

torch counts no peak on processors, and its profiler sees neither numpy's buffers nor those of compiled kernels and of
the convolutions. The system's high-water mark (VmHWM of /proc, Linux) sees all. In a process of its own glibc maps
every block above 64 KiB by itself and unmaps it when it is freed, so that the mark is exact to some pages a block.
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
    """Bytes that ``call`` holds at most beyond what was there before; it should have run once in a small form.

    Outside :func:`apart` freed blocks may be kept and reused, which hides a part.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    CLEAR.write_text("5")  # sets the high-water mark to what is resident now
    before = _kibibytes("VmRSS")
    result = call()
    peak = _kibibytes("VmHWM")
    del result
    return 1024 * (peak - before)


def _kibibytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])


def apart(function: FunctionType, *arguments: Any) -> Any:
    """Call a function of a module beside this one in a process of its own; arguments and result travel as JSON."""
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
