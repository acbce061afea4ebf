"""The spiking encoder and the image embedding at batch size 1: ONNX in onnxruntime against the model in eager torch.

Eager is the trained model in evaluation mode without gradients, with separate convolution, tdBN and neurons, in three
forms: with compiled kernels, which is the default; in plain torch (``ASHNETS_KERNELS=reference``); and as layers of
spikingjelly with the same weights. The input is one image of T steps with reset membranes. The spikes of all forms are
compared before timing. The forms are interleaved. Cost is CPU time, because other processes affect it little; with one
thread it is the time on an idle machine. Models without trained weights have random ones, which does not change the
time: convolutions are dense.

The image embedding is ITC's, from pixels and given spikes: `get_image_features` against the part of the exported model
that computes it.

A profile shows the time of each operator. The convolutions alone in onnxruntime, with their real input spikes, are
timed too: this is the time of a graph whose neurons cost nothing. The exit code is 1 if a target is missed. Record:
``MACHINE/onnx.{csv,json}`` in the folder of the output.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import onnx
import onnxruntime
import operator_profile
import torch
from measuring import interleaved
from networks import BaselineEncoder
from reporting import Report
from spikingjelly.activation_based import functional

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
TARGETS = {"float": 2.5, "int8": 4.5}  # speedup of the best form over eager
SECTION = "onnxruntime"
EAGER, PLAIN, SPIKINGJELLY = "eager", "eager, plain torch", "eager, spikingjelly"
CONVOLUTIONS = "its convolutions alone"
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


def benchmark(name: str, precision: str, rounds: int, threads: int, report: Report) -> None:
    """The spiking encoder in a precision."""
    case = f"{name}, {precision}: encoder, one image"
    report.progress(case)
    encoder = encoder_of(name, precision)
    graph = from_model(encoder, name)
    spikes, last = sample_spikes(graph, 1), graph.layers[-1].name
    eager = eager_forms(encoder, spikes, last)
    with tempfile.TemporaryDirectory() as folder:
        exported = onnx_forms(graph, spikes, Path(folder))
        forms = eager | {form: in_session(path, run, threads) for form, (path, run) in exported.items()}
        expected = graph.run(spikes)[0][last].numpy()
        mismatches = {form: int((run() != expected).sum()) for form, run in forms.items()}
        alone = {CONVOLUTIONS: convolutions(graph, spikes, Path(folder), threads)}
        compare(case, forms | alone, list(eager), exported, rounds, TARGETS[precision], report)
    report.note(f"{case}: spikes", {"all": int(expected.size), "unlike the graph's": mismatches})
    wrong = sum(count for form, count in mismatches.items() if form in exported)
    report.aim(f"{case}: spikes that differ from the graph's in any ONNX form", wrong, at_most=0)


def benchmark_embedding(name: str, rounds: int, threads: int, report: Report) -> None:
    """ITC's embedding of an image, with given spikes.

    The embeddings of both forms are close unless a membrane near θ fires in only one: a spike moves the embedding.
    """
    case = f"{name}, float: embedding, one image"
    report.progress(case)
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

        forms = {EAGER: eager, "onnx": in_session(part, run, threads)}
        report.note(f"{case}: largest difference", float(np.abs(forms["onnx"]() - eager()).max()))
        compare(case, forms, [EAGER], {"onnx": (part, run)}, rounds, TARGETS["float"], report)


def is_trained(name: str) -> bool:
    return zoo.registry.entry(name).weights is not None


def compare(
    case: str,
    forms: dict[str, Run],
    eager: list[str],
    exported: dict[str, tuple[Path, Callable]],
    rounds: int,
    target: float,
    report: Report,
) -> None:
    """Rows of each eager form against the fastest exported one, and of eager against the others; and profiles."""
    seconds = interleaved(forms, rounds, least=0, clock=time.process_time)
    best = min(exported, key=lambda form: statistics.median(seconds[form]))
    report.note(f"{case}: fastest form", best)
    for base in eager:
        ratio = report.add_ratio(SECTION, case, f"{base} / onnxruntime", seconds[base], seconds[best])
        report.aim(f"{case}: {base} / onnxruntime", ratio, at_least=target)
    for form in forms:
        if form not in (*eager, best):
            report.add_ratio(SECTION, case, f"{EAGER} / {form}", seconds[EAGER], seconds[form])
    for form in eager:
        report.profile(f"{case}, {form}", operator_profile.of_torch(forms[form], rounds))
    for form, (path, run) in exported.items():
        report.profile(f"{case}, {form}", operator_profile.of_onnxruntime(path, run, rounds))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="registry names")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=21, help="number of interleaved runs of each form")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and onnxruntime")
    parser.add_argument("--output", type=Path, default=machine.OUTPUT, help="folder of the machines' folders")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    place, report = machine.describe(), Report()
    about = {"machine": place, "rounds": options.rounds, "onnxruntime": onnxruntime.__version__}
    about["seconds_are"] = "CPU time"
    about["trained"] = {name: is_trained(name) for name in options.models}
    for name in options.models:
        for precision in options.precisions:
            benchmark(name, precision, options.rounds, options.threads, report)
        benchmark_embedding(name, options.rounds, options.threads, report)
    report.print(f"{place['processor']}, {place['threads']} threads, load {place['load_at_start'][0]}; CPU time")
    report.write(options.output / machine.folder(), "onnx", about)
    print(options.output / machine.folder())
    return int(not all(target.reached for target in report.targets))


if __name__ == "__main__":
    sys.exit(main())
