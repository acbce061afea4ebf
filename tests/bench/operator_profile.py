"""The time of a run by type of operator, in onnxruntime and in eager torch.

These times include the overhead of the profiler, mainly for small operators. They are therefore reported as shares of a
profiled run; the times of the benchmark are measured without a profiler.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from torch.profiler import ProfilerActivity, profile


def of_onnxruntime(path: Path, run: Callable[[onnxruntime.InferenceSession], object], runs: int) -> dict[str, float]:
    """Milliseconds for each run by operator type; those of a Scan exclude the nodes of its body.

    Args:
        path: the file of the graph.
        run: runs it once in a session with one thread.
        runs: number of runs for the average.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            run(session)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    return {kind: time / runs / 1000 for kind, time in own_times(nodes).items()}


def own_times(events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Microseconds by operator type; the time of an event excludes the events within it.

    Args:
        events: with ``ts``, ``dur`` and ``args.op_name``, of one thread.
    """
    found: Counter[str] = Counter()
    around: list[tuple[int, str]] = []  # (end, operator) of the events that have not ended
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        start, length, kind = event["ts"], event["dur"], event["args"]["op_name"]
        while around and around[-1][0] <= start:
            around.pop()
        found[kind] += length
        if around:
            found[around[-1][1]] -= length
        around.append((start + length, kind))
    return found


def of_torch(run: Callable[[], object], runs: int) -> dict[str, float]:
    """Milliseconds for each run by operator, without the operators that it calls; the mean of ``runs``."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(runs):
            run()
    return {e.key: e.self_cpu_time_total / runs / 1000 for e in found.key_averages() if e.self_cpu_time_total > 0}


def largest(times: Mapping[str, float], least: float = 0.04) -> str:
    """The operators with at least this share of the total, as text, in descending order."""
    whole = sum(times.values())
    shown = [(kind, time) for kind, time in sorted(times.items(), key=lambda pair: -pair[1]) if time >= least * whole]
    rest = whole - sum(time for _, time in shown)
    return ", ".join([*(f"{kind} {time / whole:.0%}" for kind, time in shown), f"the rest {rest / whole:.0%}"])
