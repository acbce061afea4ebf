"""Export the spiking branch of a model to a folder: the network, a sample with its spikes, a README, a report.

Every network is written from the neutral graph, read back and run in the other tool, and the spikes are compared. The
folder is a :func:`~ashnets.result_folder.result_folder`: it is complete, or it does not exist.
"""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from ashnets.digests import WEIGHTS_SHA256, sha256_of
from ashnets.errors import AshNetsError, ConfigurationError, MissingExtraError, OutputError
from ashnets.export.graph import SpikingGraph, from_model, quantized
from ashnets.export.onnx.parts import OPSET
from ashnets.export.onnx.reading import has_reading, write_onnx_reading
from ashnets.export.placement.chips import DEFAULT, Chip, load_chip
from ashnets.export.readme import readme
from ashnets.files import JsonObject, write_atomically, write_json
from ashnets.model.firing import rates_warnings
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.sampling import probabilistic_sampling
from ashnets.result_folder import check_place, entries, result_folder

FORMATS = ("lava", "onnx", "onnx-sequence", "onnx-unrolled", "onnx-model", "nir", "sana-fe")
MARK = "ashnets-export/1"
REPORT = "report.json"
SAMPLES = 3
_LIBRARIES = {
    "lava": ("h5py", "lava-nc", "lava-dl"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "nir": ("nir", "nirtorch", "spikingjelly", "snntorch", "norse"),
    "sana": (),
}


def export_model(
    model: nn.Module,
    to: str,
    output: str | os.PathLike,
    name: str | None = None,
    quantize: bool = False,
    counts: bool = False,
    simulate: float | None = None,
    progress: bool = False,
    images: Iterable[tuple[torch.Tensor, Sequence[int]]] | None = None,
    weights_sha256: str | None = None,
    random_weights: str | None = None,
    chip: Chip | None = None,
    mapping: str = "best",
    python: str | os.PathLike | None = None,
    texts: tuple[Sequence[str], torch.Tensor] | None = None,
) -> JsonObject:
    """Write a network, read it back and compare its spikes.

    Args:
        model: with a spiking branch; for ``onnx-model`` with its head.
        to: one of :data:`FORMATS`.
        output: a folder; the folder of an earlier export is replaced.
        name: of the model, for the provenance.
        quantize: round a float graph to integers first.
        counts: for the ONNX forms: add the spike counts of each layer as outputs.
        simulate: for lava and sana-fe: run the simulation on the sample, for at most so many seconds.
        progress: show a bar over the simulation.
        images: real images (B, 3, S, S) in [0, 1], in batches with their keys, to find silent and saturated layers; by
            default the smooth noise of the sample.
        weights_sha256: digest of the weights' files (`ashnets.digests`), which connects an export with a model card.
        chip, mapping: for sana-fe: the chip, Loihi 1 by default, and how neurons are mapped to its cores.
        python: for sana-fe: a Python that has sanafe; the running one by default.
        texts: for the forms of the encoder: texts with their embeddings (M, D) for spikes; the folder then also has the
            reading from spike counts to embeddings, if the model has one, for onnxruntime on the host.
        random_weights: a sentence that describes random weights; the network, its README and the report repeat it.

    Returns:
        The report, as in the folder's ``report.json``: mismatches, sizes, opset, versions; ``warnings``, if a layer is
        silent or saturated.

    Raises:
        ConfigurationError: an unknown format, or a model that the format does not support, with the reason.
        MissingExtraError: a library that writes the format is not installed.
        OutputError: the folder contains something else, or cannot be written.
        AshNetsError: the written network gives other spikes than the graph; nothing is kept.
    """
    if to not in FORMATS:
        raise ConfigurationError(f"--to {to!r} is not one of {', '.join(FORMATS)}")
    output = Path(output)
    _check_folder(output)
    model = _on_cpu(model)
    graph = from_model(model, name)
    if quantize:
        if to == "onnx-model":
            raise ConfigurationError("--quantize rounds only the spiking branch: export it to lava or onnx")
        graph = quantized(graph)
    if random_weights:
        graph = replace(graph, provenance={**graph.provenance, "weights": random_weights})
    spikes = sample_spikes(graph)
    with result_folder(output, REPORT) as aside:
        result = _writer(to)(
            model,
            graph,
            spikes,
            aside,
            {
                "counts": counts,
                "simulate": simulate,
                "progress": progress,
                "chip": chip,
                "mapping": mapping,
                "python": python,
            },
        )
        report = _report(graph, to, weights_sha256, result)
        if random_weights:
            report["random_weights"] = f"{random_weights}: spikes and firing rates are those of random weights"
        if warnings := rates_warnings(_rates(graph, spikes, images)):
            report["warnings"] = warnings
        write_atomically(aside / "sample.jpg", sample_jpeg())
        if texts is not None and reads_texts(model, to):
            try:
                write_onnx_reading(model, aside / "reading.onnx")
            except MissingExtraError as error:
                report.setdefault("warnings", []).append(f"the folder has no reading of texts: {error}")
            else:
                _savez(
                    aside / "texts.npz", {"texts": np.array(list(texts[0])), "embeds": texts[1].float().cpu().numpy()}
                )
                report["texts"] = len(texts[0])
        text = readme(graph, to, report)
        write_atomically(aside / "README.md", text.encode())
        report["files"] = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(aside.iterdir())
        }
        write_json(aside / REPORT, report)
    return report


def _on_cpu(model: nn.Module) -> nn.Module:
    """The model, or a copy if it is on another device: the writers and the tools that judge them are on the CPU."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return model if on_cpu else copy.deepcopy(model).cpu()


def reads_texts(model: nn.Module, to: str) -> bool:
    """Whether the folder of a format gets the reading from spike counts to texts."""
    return to != "onnx-model" and has_reading(model)


def sample_images(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Smooth random images in [0, 1], (count, 3, *size): enlarged coarse noise."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size, mode="bilinear", align_corners=True).clamp(0, 1)


def sample_jpeg() -> bytes:
    """A small image file, the same for every export: the README shows how it becomes spikes."""
    noise = sample_images(1, (120, 160), seed=1)[0]
    image = Image.fromarray((noise * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def sample_spikes(graph: SpikingGraph, count: int = SAMPLES) -> torch.Tensor:
    """(T, count, C, H, W): spikes that the sampler draws from :func:`sample_images`."""
    height, width = graph.input_shape[1:]
    images = sample_images(count, (height, width))
    return probabilistic_sampling(images, list(range(count)), graph.time_steps, graph.encoding.seed)


def _rates(
    graph: SpikingGraph, sample: torch.Tensor, images: Iterable[tuple[torch.Tensor, Sequence[int]]] | None
) -> dict[str, float]:
    """Layer → firing rate in the written graph, which rounding may have changed."""
    drawn = (
        [sample]
        if images is None
        else (probabilistic_sampling(pixels, keys, graph.time_steps, graph.encoding.seed) for pixels, keys in images)
    )
    means = [{name: float(fired.mean()) for name, fired in graph.run(spikes)[0].items()} for spikes in drawn]
    return {name: sum(one[name] for one in means) / len(means) for name in means[0]}


def _writer(to: str) -> Callable[..., JsonObject]:
    if to == "lava":
        return _lava
    if to == "nir":
        return _nir
    if to == "sana-fe":
        return _sanafe
    if to == "onnx-model":
        return _onnx_model
    return lambda *arguments: _onnx(to, *arguments)


def _lava(model: nn.Module, graph: SpikingGraph, spikes: torch.Tensor, folder: Path, wanted: dict) -> JsonObject:
    from ashnets.export.emulator import IntegerLayer, emulate
    from ashnets.export.lava import read_lava, write_lava

    expected, _ = graph.run(spikes)
    read_back = read_lava(write_lava(graph, folder / "network.h5"))
    layers = [
        IntegerLayer(layer.name, layer.integer, layer.stride, layer.padding, layer.groups)
        for layer in read_back.layers
        if layer.integer is not None
    ]
    emulated, _ = emulate(layers, spikes)
    found = {"emulator of the chip": _mismatches({k: torch.from_numpy(v) for k, v in emulated.items()}, expected)}
    not_run = {"lava's CPU simulation": "slow: --simulate SECONDS runs it"}
    if wanted["simulate"] is not None:
        from ashnets.export.lava_simulation import simulate

        simulated = simulate(folder / "network.h5", spikes, wanted["simulate"], wanted["progress"])
        found["lava's CPU simulation"] = _mismatches(simulated, expected)
        not_run = {}
    _must_agree(found)
    _save_sample(folder, spikes, expected)
    return {"mismatches": found, "not_run": not_run, **_compared(expected.values())}


def _onnx(
    to: str, model: nn.Module, graph: SpikingGraph, spikes: torch.Tensor, folder: Path, wanted: dict
) -> JsonObject:
    from ashnets.export.onnx.running import run_onnx
    from ashnets.export.onnx.sequence import write_onnx_sequence
    from ashnets.export.onnx.step import write_onnx_step

    expected, _ = graph.run(spikes)
    path = folder / "network.onnx"
    if to == "onnx":
        write_onnx_step(graph, path, layer_spikes=True, layer_counts=wanted["counts"])
    else:
        unrolled = graph.time_steps if to == "onnx-unrolled" else None
        write_onnx_sequence(graph, path, unrolled, layer_spikes=True, layer_counts=wanted["counts"])
    found, not_run = {}, {}
    try:
        found["onnxruntime"] = _mismatches(run_onnx(path, spikes)[0], expected)
    except MissingExtraError as error:
        not_run["onnxruntime"] = str(error)
    _must_agree(found)
    _save_sample(folder, spikes, expected)
    return {"mismatches": found, "not_run": not_run, **_compared(expected.values())}


def _onnx_model(
    model: AshNetsPreTrainedModel, graph: SpikingGraph, spikes: torch.Tensor, folder: Path, wanted: dict
) -> JsonObject:
    from ashnets.export.onnx.model import TOLERANCE, largest_difference, run_onnx_model, sample_inputs, write_onnx_model

    path = write_onnx_model(model, folder / "network.onnx", wanted["counts"])
    inputs = sample_inputs(model, batch=SAMPLES, length=min(8, model.config.max_text_length))
    outputs = run_onnx_model(path, inputs)
    differences = largest_difference(model, outputs, inputs)
    if (worst := max(differences.values())) > TOLERANCE:
        raise AshNetsError(
            f"the exported model differs by {worst:.2g} of an output's magnitude from torch, above {TOLERANCE:g}; "
            "nothing was kept"
        )
    arrays = {**inputs, **{f"expected_{name}": value for name, value in outputs.items()}}
    _savez(folder / "sample.npz", {name: value.numpy() for name, value in arrays.items()})
    return {
        "largest_difference": differences,
        "largest_difference_from_the_model_unfolded": largest_difference(model, outputs, inputs, folded=False),
        "tolerance": TOLERANCE,
        "not_run": {},
    }


def _nir(model: nn.Module, graph: SpikingGraph, spikes: torch.Tensor, folder: Path, wanted: dict) -> JsonObject:
    from ashnets.export.nir_graph import LOADERS, compare_nir, write_nir

    expected, _ = graph.run(spikes)
    path = write_nir(graph, folder / "network.nir")
    found = compare_nir(path, graph, spikes)
    missing = {name: "not installed" for name in LOADERS if name not in found}
    _save_sample(folder, spikes, expected)
    return {"mismatches": found, "not_run": missing, **_compared([expected[graph.layers[-1].name]])}


def _sanafe(model: nn.Module, graph: SpikingGraph, spikes: torch.Tensor, folder: Path, wanted: dict) -> JsonObject:
    from ashnets.export.energy.placed import place_by_spikes
    from ashnets.export.sanafe.simulation import compare_sanafe, python_of
    from ashnets.export.sanafe.writing import write_sanafe

    python = None if wanted["simulate"] is None else python_of(wanted["python"])  # before anything takes long
    expected, _ = graph.run(spikes)
    placement = place_by_spikes(graph, wanted["chip"] or load_chip(DEFAULT), wanted["mapping"], spikes)
    write_sanafe(graph, placement, folder)
    _save_sample(folder, spikes, expected)
    result: JsonObject = {"mismatches": {}, "not_run": {"SANA-FE": "takes minutes: --simulate SECONDS runs it"}}
    if python is not None:
        compared = compare_sanafe(folder, graph, placement, spikes, python, timeout=wanted["simulate"])
        found = {"SANA-FE": compared["differ"]}
        if graph.precision == "int8":
            _must_agree(found)
        result = {"mismatches": found, "not_run": {}, "simulated": compared}
    placed = {key: value for key, value in placement.to_dict().items() if key not in ("mesh", "figures")}
    return {"placement": placed, **result, **_compared(expected.values())}


def _mismatches(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> int:
    return sum(int((found[name] != value).sum()) for name, value in expected.items())


def _compared(expected: Iterable[torch.Tensor]) -> dict[str, int]:
    """Number of compared outputs, and of spikes among them: without spikes, agreement proves nothing."""
    spikes = list(expected)
    return {"compared": sum(x.numel() for x in spikes), "fired": sum(int(x.sum()) for x in spikes)}


def _must_agree(found: dict[str, int]) -> None:
    for tool, count in found.items():
        if count:
            raise AshNetsError(
                f"{tool}: {count} spikes of the written network differ from the graph's, and none may differ; nothing "
                "was kept. Please report it with the versions in use"
            )


def _save_sample(folder: Path, spikes: torch.Tensor, expected: dict[str, torch.Tensor]) -> None:
    arrays = {"spikes": spikes, **{f"expected_{name}": value for name, value in expected.items()}}
    _savez(folder / "sample.npz", {name: value.to(torch.uint8).numpy() for name, value in arrays.items()})


def _savez(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def _report(graph: SpikingGraph, to: str, weights_sha256: str | None, result: JsonObject) -> JsonObject:
    family = to.partition("-")[0]
    versions = {"ashnets": graph.provenance["ashnets"], "torch": torch.__version__}
    for library in _LIBRARIES[family]:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = "not installed"
    return {
        "mark": MARK,
        "model": graph.name,
        WEIGHTS_SHA256: weights_sha256,
        "to": to,
        "precision": graph.precision,
        "quantization": graph.provenance["quantization"],
        "images": SAMPLES,
        "steps": graph.time_steps,
        **result,
        **({"opset": OPSET} if family == "onnx" else {}),
        "versions": versions,
    }


def _check_folder(output: Path) -> None:
    """Refuse to replace a folder with files that no export wrote."""
    check_place(output, REPORT)
    if not (output / REPORT).is_file():
        return
    try:
        report = json.loads((output / REPORT).read_bytes())
        ours = {REPORT, *report["files"]} if report["mark"] == MARK else set()
    except (ValueError, KeyError, TypeError):
        ours = set()
    if others := sorted(set(entries(output)) - ours):
        raise OutputError(
            f"{output} contains files that no export wrote ({others[0]}): choose another folder, or move them away"
        )
