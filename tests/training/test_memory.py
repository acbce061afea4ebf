"""Freed memory is reused: counts the pages that the kernel provides, in separate processes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

# Tensors of 40 MB: above the 32 MiB at most up to which glibc by itself comes to reuse a freed block.
MEASURE = """
import json, resource, sys, threading
import torch
from ashnets.training.memory import keep_freed_memory

torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
x = torch.ones(10_000_000)

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        y = (x * 2).add(1)
        assert y[0] == y[-1] == 3
        del y
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def elsewhere():
    faults(6)
    found["thread"] = faults(8)

faults(6)  # the heap first grows to what is needed at one time
found = {"kept": kept, "main": faults(8)}
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
print(json.dumps(found))
"""


def memory_of(how: str) -> dict:
    done = subprocess.run([sys.executable, "-c", MEASURE, how], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_large_tensors_no_longer_fault_their_pages_in_each_time():
    """In the main thread, and in another, as the backward pass may be. Systems without glibc keep their own way."""
    kept = memory_of("kept")
    if platform.libc_ver()[0] != "glibc":
        assert kept["kept"] is False
        return
    assert kept["kept"] is True
    plain = memory_of("plain")
    for where in ("main", "thread"):
        # sixteen tensors of 40 MB, in pages of 2 MiB at most
        assert plain[where] >= 16 * 19
        assert plain[where] >= 5 * kept[where], (where, plain, kept)
