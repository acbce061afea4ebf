"""The spiking encoder and the image embedding at batch size 1: ONNX in onnxruntime against the model in eager torch.

Eager is the trained model in evaluation mode without gradients, with separate convolution, tdBN and neurons, in three
forms: with compiled kernels, which is the default; in plain torch (``ASHNETS_KERNELS=reference``); and as layers of
spikingjelly with the same weights. The input is one image of T steps with reset membranes. The spikes of all forms are
compared before timing. The forms are interleaved, and the medians of all rounds are reported. Cost is CPU time, because
other processes affect it little; with one thread it is the time on an idle machine. Wall-clock time is reported too.
Models without trained weights have random ones, which does not change the time: convolutions are dense.

The image embedding is ITC's, from pixels and given spikes: `get_image_features` against the part of the exported model
that computes it.

A profile shows the time of each operator. The convolutions alone in onnxruntime, with their real input spikes, are
timed too: this is the time of a graph whose neurons cost nothing. The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import machine
import numpy as np
import onnx
import onnxruntime
import operator_profile
import torch
from networks import BaselineEncoder
from rich.console import Console
from rich.table import Table
from spikingjelly.activation_based import functional
from verdict import conclude

import ashnets
from ashnets import zoo
from ashnets.configuration import PRECISIONS, AshNetsConfig
from ashnets.export.exporting import sample_spikes
from ashnets.export.graph import SpikingGraph, from_model
from ashnets.export.onnx.model import write_onnx_model
from ashnets.export.onnx.parts import Parts
from ashnets.export.onnx.sequence import write_onnx_sequence
from ashnets.export.onnx.step import write_onnx_step
from ashnets.kernels import choosing, operators, reference
from ashnets.model.abstract_encoder import AbstractEncoder

MODELS = ["ashnets-tiny", "ashnets-r152"]
TARGET = 3.0  # speedup of the best form over eager
EAGER, PLAIN, SPIKINGJELLY = "eager", "eager, plain torch", "eager, spikingjelly"
CONVOLUTIONS = "convolutions alone"
Run = Callable[[], np.ndarray]


def encoder_of(name: str, precision: str) -> AbstractEncoder:
    """The encoder with trained weights if there are any; for int8 they are rounded."""
    if is_trained(name):
        model = ashnets.from_pretrained(name)
        trained = next(m for m in model.modules() if isinstance(m, AbstractEncoder))
    else:
        torch.manual_seed(0)
        trained = AbstractEncoder(zoo.config_of(name))
    encoder = AbstractEncoder(AshNetsConfig(**{**trained.config.to_dict(), "precision": precision})).eval()
    encoder.load_state_dict(trained.state_dict())
    return encoder


def session_of(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def eager_forms(encoder: AbstractEncoder, spikes: torch.Tensor, last: str) -> dict[str, Run]:
    """Name → a function that runs one image and returns the spikes of the last layer, (T, 1, C, h, w)."""

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return encoder.run(spikes)[0][last].numpy()

    if encoder.config.precision == "int8":  # int8 always runs in plain torch
        return {EAGER: eager}

    def plain() -> np.ndarray:
        operators.kernels_for = lambda device: reference
        try:
            return eager()
        finally:
            operators.kernels_for = choosing.kernels_for

    baseline = BaselineEncoder(encoder).eval()

    def spikingjelly() -> np.ndarray:
        functional.reset_net(baseline)
        x = spikes
        with torch.inference_mode():
            for block in baseline.layers.values():
                x = block(x)
            return x.numpy()

    return {EAGER: eager, PLAIN: plain, SPIKINGJELLY: spikingjelly}


def onnx_forms(graph: SpikingGraph, spikes: torch.Tensor, folder: Path) -> dict[str, tuple[Path, Callable]]:
    """Name → the file, and a function that runs one image in a session of it."""
    given, last = spikes.numpy(), graph.layers[-1].name
    rest = {f"v_{layer.name}": v.numpy() for layer, v in zip(graph.layers, graph.rest(1), strict=True)}
    names = [last, *(f"{name}_next" for name in rest)]

    def stepwise(session: onnxruntime.InferenceSession) -> np.ndarray:
        state, fired = rest, []
        for x in given:
            out = dict(zip(names, session.run(names, {"spikes": x, **state}), strict=True))
            state = {name: out[f"{name}_next"] for name in rest}
            fired.append(out[last])
        return np.stack(fired)

    def whole(session: onnxruntime.InferenceSession) -> np.ndarray:
        return session.run([last], {"spikes": given, **rest})[0]

    return {
        "step": (write_onnx_step(graph, folder / "step.onnx"), stepwise),
        "sequence": (write_onnx_sequence(graph, folder / "sequence.onnx"), whole),
        "unrolled": (write_onnx_sequence(graph, folder / "unrolled.onnx", unrolled=graph.time_steps), whole),
    }


def convolutions(graph: SpikingGraph, spikes: torch.Tensor, folder: Path, threads: int) -> Run:
    """A function that runs all convolutions on T images, without the neurons between them."""
    parts, given = Parts(onnx, graph), {}
    outputs, _ = graph.run(spikes)
    for layer, arriving in zip(graph.layers, [spikes, *outputs.values()], strict=False):
        put, out = f"{layer.name}.in", f"{layer.name}.out"
        given[put] = arriving.flatten(0, 1).numpy()
        parts.inputs.append(parts.value(put, ["B", *layer.input_shape]))
        parts.outputs.append(parts.value(out, ["B", *layer.output_shape]))
        parts.nodes.append(parts.current(layer, put, out))
    onnx.save(parts.model("convolutions"), folder / "convolutions.onnx")
    session = session_of(folder / "convolutions.onnx", threads)
    binding, found = session.io_binding(), []
    for layer in graph.layers:
        # existing memory for the outputs: new pages would cost as much as the arithmetic
        found.append(np.empty((len(spikes), *layer.output_shape), np.float32))
        binding.bind_cpu_input(f"{layer.name}.in", given[f"{layer.name}.in"])
        binding.bind_ortvalue_output(f"{layer.name}.out", onnxruntime.OrtValue.ortvalue_from_numpy(found[-1]))

    def run() -> np.ndarray:
        session.run_with_iobinding(binding)
        return found[-1]

    return run


def in_session(path: Path, run: Callable, threads: int) -> Run:
    session = session_of(path, threads)
    return lambda: run(session)


def benchmark(name: str, precision: str, rounds: int, threads: int) -> dict:
    """A row for the spiking encoder in a precision."""
    encoder = encoder_of(name, precision)
    graph = from_model(encoder, name)
    spikes, last = sample_spikes(graph, 1), graph.layers[-1].name
    eager = eager_forms(encoder, spikes, last)
    with tempfile.TemporaryDirectory() as folder:
        exported = onnx_forms(graph, spikes, Path(folder))
        forms = eager | {form: in_session(path, run, threads) for form, (path, run) in exported.items()}
        expected = graph.run(spikes)[0][last].numpy()
        mismatches = {form: int((run() != expected).sum()) for form, run in forms.items()}
        timed = timings(
            forms | {CONVOLUTIONS: convolutions(graph, spikes, Path(folder), threads)}, eager, exported, rounds
        )
    return {
        "model": name,
        "precision": precision,
        "trained": is_trained(name),
        "steps": graph.time_steps,
        "spikes": int(expected.size),
        "mismatches": mismatches,
        **timed,
    }


def benchmark_embedding(name: str, rounds: int, threads: int) -> dict:
    """A row for ITC's embedding of an image, with given spikes.

    The embeddings of both forms are close unless a membrane near θ fires in only one: a spike moves the embedding.
    """
    model: Any = (
        ashnets.from_pretrained(name, task="retrieval")
        if is_trained(name)
        else ashnets.create(name, task="retrieval", seed=0)
    )
    model.eval()
    size = model.config.image_size
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    spikes = model.ashnets.vision.sample(pixels, torch.zeros(1, dtype=torch.long))  # (T, 1, 3, H, W)
    mask = np.ones((1, 2), np.int64)  # the exported graph reads B from it
    inputs = {"pixel_values": pixels.numpy(), "spikes": spikes.numpy(), "attention_mask": mask}

    def eager() -> np.ndarray:
        with torch.inference_mode():
            found = model.get_image_features(pixels, spikes=spikes, readout="per_image").pooler_output
            return torch.nn.functional.normalize(found, dim=-1).numpy()

    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder) / "model.onnx", Path(folder) / "image.onnx"
        onnx.utils.extract_model(write_onnx_model(model, whole), part, list(inputs), ["image_embeds"])

        def run(session: onnxruntime.InferenceSession) -> np.ndarray:
            return session.run(None, inputs)[0]

        exported = {"onnx": (part, run)}
        forms = {EAGER: eager, "onnx": in_session(part, run, threads)}
        distance = float(np.abs(forms["onnx"]() - eager()).max())
        timed = timings(forms, {EAGER: eager}, exported, rounds)
    return {
        "model": f"{name}, image embedding",
        "precision": "float",
        "trained": is_trained(name),
        "steps": model.config.time_steps,
        "largest_difference": distance,
        "mismatches": {},
        **timed,
    }


def is_trained(name: str) -> bool:
    return zoo.registry.entry(name).weights is not None


def timings(forms: Mapping[str, Run], eager: Mapping[str, Run], exported: Mapping[str, tuple], rounds: int) -> dict:
    """Costs and times of interleaved runs of all forms, their ratios, and a profile of the eager and exported ones."""
    costs: dict[str, list[float]] = {form: [] for form in forms}
    times: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form, run in forms.items():
            cost, start = time.process_time(), time.perf_counter()
            run()
            costs[form].append(time.process_time() - cost)
            times[form].append(time.perf_counter() - start)
    medians = {form: statistics.median(found) for form, found in costs.items()}
    profiles = {form: operator_profile.of_torch(run, rounds) for form, run in eager.items()}
    for form, (path, run) in exported.items():
        profiles[form] = operator_profile.of_onnxruntime(path, run, rounds)
    return {
        "cost_milliseconds": {form: 1000 * median for form, median in medians.items()},
        "clock_milliseconds": {form: 1000 * statistics.median(found) for form, found in times.items()},
        "fastest": min(exported, key=medians.__getitem__),
        "times_faster_than": {base: {form: medians[base] / medians[form] for form in medians} for base in eager},
        "profile_milliseconds": profiles,
        "machine": machine.describe(),
    }


def targets(rows: list[dict]) -> dict[str, bool]:
    """Target and measured value as text → whether the target was reached."""
    found = {}
    for row in rows:
        subject, best = f"{row['model']} in {row['precision']}", row["fastest"]
        for base, ratios in row["times_faster_than"].items():
            bound = f" ({CONVOLUTIONS}: {ratios[CONVOLUTIONS]:.1f})" if CONVOLUTIONS in ratios else ""
            found[f"{subject}: {best} {ratios[best]:.1f} times as fast as {base}, target {TARGET:g}{bound}"] = (
                ratios[best] >= TARGET
            )
        if not row["mismatches"]:
            continue
        wrong = sum(count for form, count in row["mismatches"].items() if not form.startswith(EAGER))
        found[f"{subject}: {wrong} of {row['spikes']:,} spikes differ from the graph in any ONNX form"] = not wrong
    return found


def tables(rows: list[dict], title: str) -> list[Table]:
    """A table of times and a table of operators."""
    speed, shares = Table(title=title), Table(title="share of a profiled run by operator, one thread")
    for column in ("model", "precision", "weights", "T", "form"):
        speed.add_column(column)
    for column in ("cost, ms", "clock, ms", "× eager", "× plain torch", "× spikingjelly", "spikes unlike the graph's"):
        speed.add_column(column, justify="right")
    for column in ("model", "precision", "form", "operators"):
        shares.add_column(column)
    for row in rows:
        for form, cost in row["cost_milliseconds"].items():
            ratios = [row["times_faster_than"].get(base, {}).get(form) for base in (EAGER, PLAIN, SPIKINGJELLY)]
            speed.add_row(
                row["model"],
                row["precision"],
                "trained" if row["trained"] else "random",
                str(row["steps"]),
                form,
                f"{cost:.2f}",
                f"{row['clock_milliseconds'][form]:.2f}",
                *("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
                str(row["mismatches"].get(form, "–")),
            )
        for form, profile in row["profile_milliseconds"].items():
            shares.add_row(row["model"], row["precision"], form, operator_profile.largest(profile))
    return [speed, shares]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="registry names")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=21, help="number of interleaved runs of each form")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and onnxruntime")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.models:
        rows += [benchmark(name, precision, options.rounds, options.threads) for precision in options.precisions]
        rows.append(benchmark_embedding(name, options.rounds, options.threads))
    title = f"one image, medians of {options.rounds} interleaved runs, threads: {options.threads}"
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables(rows, title):
        console.print(table)
    conclude(rows, targets(rows), options.json)


if __name__ == "__main__":
    main()
