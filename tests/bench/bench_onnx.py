"""The spiking encoder at batch 1: its ONNX forms in onnxruntime beside the model in eager torch.

Eager is the model as it is trained, convolution, tdBN and neurons apart, in evaluation mode without gradients. One
picture of T steps, from membranes at rest; the spikes of every form are compared before they are timed. The forms take
turns, round after round; medians. Cost is processor time, which other work on the machine disturbs little; on one
thread it is what a quiet machine takes, and the clock's time stands beside it. Weights are random where none are
trained, which changes no time: convolutions are dense. The exit code is 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from verdict import conclude

import ashnets
from ashnets import zoo
from ashnets.export.exporting import sample_spikes
from ashnets.export.graph import SpikingGraph, from_model
from ashnets.export.onnx_sequence import write_onnx_sequence
from ashnets.export.onnx_step import write_onnx_step
from ashnets.model.abstract_encoder import AbstractEncoder

MODELS = ["ashnets-tiny", "ashnets-r152"]
TARGET = 3.0  # times faster than eager, the best form
Run = Callable[[], np.ndarray]


def encoder_of(name: str) -> AbstractEncoder:
    """Trained where there are weights."""
    if zoo.registry.entry(name).weights is not None:
        model = ashnets.from_pretrained(name)
        return next(m for m in model.modules() if isinstance(m, AbstractEncoder))
    torch.manual_seed(0)
    return AbstractEncoder(zoo.config_of(name)).eval()


def session_of(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def forms(encoder: AbstractEncoder, graph: SpikingGraph, folder: Path, threads: int) -> dict[str, Run]:
    """Name → a run of one picture that returns the last layer's spikes, (T, 1, C, h, w)."""
    spikes = sample_spikes(graph, 1)
    given, last = spikes.numpy(), graph.layers[-1].name
    rest = {f"v_{layer.name}": v.numpy() for layer, v in zip(graph.layers, graph.rest(1), strict=True)}

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return encoder.run(spikes)[0][last].numpy()

    step = session_of(write_onnx_step(graph, folder / "step.onnx"), threads)
    names = [o.name for o in step.get_outputs()]

    def stepwise() -> np.ndarray:
        state, fired = rest, []
        for x in given:
            out = dict(zip(names, step.run(names, {"spikes": x, **state}), strict=True))
            state = {name: out[f"{name}_next"] for name in rest}
            fired.append(out[last])
        return np.stack(fired)

    def whole(path: Path) -> Run:
        session = session_of(path, threads)
        return lambda: session.run([last], {"spikes": given, **rest})[0]

    return {
        "eager": eager,
        "step": stepwise,
        "sequence": whole(write_onnx_sequence(graph, folder / "sequence.onnx")),
        "unrolled": whole(write_onnx_sequence(graph, folder / "unrolled.onnx", unrolled=graph.time_steps)),
    }


def measure(name: str, rounds: int, threads: int) -> dict:
    encoder = encoder_of(name)
    graph = from_model(encoder, name)
    with tempfile.TemporaryDirectory() as folder:
        runs = forms(encoder, graph, Path(folder), threads)
        expected = graph.run(sample_spikes(graph, 1))[0][graph.layers[-1].name].numpy()
        mismatches = {form: int((run() != expected).sum()) for form, run in runs.items()}
        costs: dict[str, list[float]] = {form: [] for form in runs}
        times: dict[str, list[float]] = {form: [] for form in runs}
        for _ in range(rounds):
            for form, run in runs.items():
                cost, start = time.process_time(), time.perf_counter()
                run()
                costs[form].append(time.process_time() - cost)
                times[form].append(time.perf_counter() - start)
    medians = {form: statistics.median(found) for form, found in costs.items()}
    return {
        "model": name,
        "trained": zoo.registry.entry(name).weights is not None,
        "steps": graph.time_steps,
        "spikes": int(expected.size),
        "mismatches": mismatches,
        "cost_milliseconds": {form: 1000 * median for form, median in medians.items()},
        "clock_milliseconds": {form: 1000 * statistics.median(found) for form, found in times.items()},
        "times_faster": {form: medians["eager"] / median for form, median in medians.items()},
    }


def targets(rows: list[dict]) -> dict[str, bool]:
    """What was aimed at, with what was found → whether it was reached."""
    found = {}
    for row in rows:
        best = max((form for form in row["times_faster"] if form != "eager"), key=row["times_faster"].__getitem__)
        ratio = row["times_faster"][best]
        found[f"{row['model']}: {best} {ratio:.1f} times as fast as eager, aim {TARGET:g}"] = ratio >= TARGET
        wrong = sum(count for form, count in row["mismatches"].items() if form != "eager")
        found[f"{row['model']}: {wrong} of {row['spikes']:,} spikes differ from the graph in any ONNX form"] = not wrong
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="registry names")
    parser.add_argument("--rounds", type=int, default=21, help="runs of each form, taking turns")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of onnxruntime")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(name, options.rounds, options.threads) for name in options.models]
    table = Table(title=f"one picture, medians of {options.rounds} in turn, threads: {options.threads}")
    for name in ("model", "weights", "T", "form"):
        table.add_column(name)
    for name in ("cost, ms", "clock, ms", "times eager's speed", "spikes unlike the graph's"):
        table.add_column(name, justify="right")
    for row in rows:
        for form, cost in row["cost_milliseconds"].items():
            table.add_row(
                row["model"], "trained" if row["trained"] else "random", str(row["steps"]), form, f"{cost:.2f}",
                f"{row['clock_milliseconds'][form]:.2f}", f"{row['times_faster'][form]:.2f}",
                str(row["mismatches"][form]),
            )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    conclude(rows, targets(rows), options.json)


if __name__ == "__main__":
    main()
