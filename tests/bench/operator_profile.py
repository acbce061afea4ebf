"""Where the time of a run goes, by kind of operator, in onnxruntime and in eager torch.

A profiler's own work is in these figures and weighs on small operators most, so they are shares of a profiled run; the
benchmark's times are taken without it.
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
    """Milliseconds a run by operator type; a Scan's are those that its body's nodes do not account for.

    Args:
        path: of the graph.
        run: one run of it, on one thread.
        runs: how many are averaged.
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
    """Microseconds by operator type; an event's time leaves out the events within it.

    Args:
        events: ``ts`` and ``dur`` of one thread, and ``args.op_name``.
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
    """Milliseconds a run by operator, each without what it calls; the mean of ``runs``."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(runs):
            run()
    return {e.key: e.self_cpu_time_total / runs / 1000 for e in found.key_averages() if e.self_cpu_time_total > 0}


def largest(times: Mapping[str, float], least: float = 0.04) -> str:
    """The operators that take at least this share of the whole, in words, largest first."""
    whole = sum(times.values())
    shown = [(kind, time) for kind, time in sorted(times.items(), key=lambda pair: -pair[1]) if time >= least * whole]
    rest = whole - sum(time for _, time in shown)
    return ", ".join([*(f"{kind} {time / whole:.0%}" for kind, time in shown), f"the rest {rest / whole:.0%}"])
