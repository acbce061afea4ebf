"""The energy report of a model: its operations for one image, and their energy under several hardware profiles.

One dictionary contains the whole report (``energy.json``; its schema is ``templates/energy-report.schema.json``). The
tables and the page are made from it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ashnets.data.similar import similar_groups
from ashnets.digests import WEIGHTS_SHA256
from ashnets.environment import environment
from ashnets.errors import ConfigurationError
from ashnets.export.counting import Counter, Counts
from ashnets.export.energy.estimating import Estimate, artificial_energy, estimate, over_rate, over_steps
from ashnets.export.energy.memory import NONE
from ashnets.export.energy.placed import not_placed, place_by_spikes, placement_report
from ashnets.export.energy.profiles import Profile
from ashnets.export.graph import SpikingGraph, from_model
from ashnets.export.placement.chips import DEFAULT, Chip, load_chip
from ashnets.export.placement.latency import Latency
from ashnets.export.placement.mapping import check_mapping
from ashnets.export.placement.placed import Placement
from ashnets.files import write_atomically, write_csv, write_json
from ashnets.model.firing import rates_warnings
from ashnets.model.sampling import probabilistic_sampling
from ashnets.result_folder import result_folder
from ashnets.zoo.gallery_images import Images
from ashnets.zoo.macs import DenseLayer, dense_layers

REPORT = "energy.json"
SCHEMA_VERSION = 2
FILES = (REPORT, "energy.csv", "layers.csv", "energy.html")  # in the folder of a report
HELD = 1 << 26  # spikes of all layers in one batch, at most (256 MB)
BATCH = 16
SEED = 0  # of the order in which groups are formed


def energy_report(
    model: Any,
    images: Images,
    profiles: Sequence[Profile],
    *,
    name: str,
    weights: str,
    weights_sha256: str | None = None,
    chip: Chip | None = None,
    mapping: str = "best",
    must_fit: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Count a model on images and estimate its energy.

    The spiking branch is counted on each image from a reset state, over twice its T steps for the curve over T; and
    in groups of φ similar images, with the membranes carried on and reset.

    Args:
        model: with a spiking branch.
        images: see :func:`ashnets.export.energy.images.read_images`.
        profiles: see :func:`ashnets.export.energy.profiles.load_profile`.
        name, weights: labels; ``weights`` describes them, such as ``trained: pictograms``.
        weights_sha256: digest of the weights' files (`ashnets.digests`), by which a model card knows its own reports.
        chip: on which the spiking branch is placed; that of the profiles, or Loihi 1, by default.
        mapping: see :mod:`ashnets.export.placement.mapping`.
        must_fit: raise if the model does not fit the chip; otherwise the report says so and routing is assumed.
        progress: show a bar.

    Raises:
        ConfigurationError: an unknown mapping, the model has no spiking branch, or does not fit the chip although it
            must.
    """
    graph = from_model(model, name)
    chip = chip or chip_of(profiles)
    placement, placed = placed_or_not(graph, images, chip, mapping, must_fit)
    counts, longer, latency = count_images(graph, images, progress, placement=placement)
    if placement is not None and latency is not None:
        placed = placement_report(placement, counts, latency)
    artificial = artificial_layers(model)
    data = f"{images.source}; T = {counts.steps}, each image from a reset state"
    estimates = [estimate(counts, profile, artificial, data) for profile in profiles]
    config = model.config
    warnings = rates_warnings({layer.name: layer.rate for layer in counts.layers})
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "estimate",
        **({"warnings": warnings} if warnings else {}),
        "model": {
            "name": name,
            "weights": weights,
            WEIGHTS_SHA256: weights_sha256,
            "time_steps": config.time_steps,
            "group_size": config.group_size,
            "carry": config.carry,
            "image_size": config.image_size,
            "visual_tokens": config.num_visual_tokens,
            "text_tokens": config.max_text_length,
            "layers": [layer.name for layer in graph.layers],
        },
        "data": {
            "source": images.source,
            "images": len(images),
            "sampling_seed": graph.encoding.seed,
            "input_intensity": float(images.pixels.mean()),
        },
        "counts": counts.to_dict(),
        "placement": placed,
        "group": _group(model, graph, images, progress),
        "artificial": {
            part: {"macs": sum(one.macs for one in layers), "weights": sum(one.weights for one in layers)}
            for part, layers in artificial.items()
        },
        "estimates": [one.to_dict() for one in estimates],
        "curves": [_curves(longer, counts, one) for one in estimates],
        "environment": environment(),
    }


def count_and_estimate(
    model: Any,
    images: Images,
    profiles: Sequence[Profile],
    *,
    name: str,
    chip: Chip | None = None,
    mapping: str = "best",
    must_fit: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """A model's counts and energy in short form, for a comparison of models; arguments as in :func:`energy_report`.

    Returns:
        ``spikes``, ``synaptic_operations`` and ``rate`` of the spiking branch for an image, None where there is no
        such branch; ``artificial_macs``; and ``energy``: profile → ``spiking``, ``artificial`` and their ``total`` in
        pJ an image, with ``low`` and ``high`` where the profile has memory.
    """
    artificial = artificial_layers(model)
    found: dict[str, Any] = {"spikes": None, "synaptic_operations": None, "rate": None}
    counts = None
    if model.config.has_spiking_branch:
        graph = from_model(model, name)
        placement, _ = placed_or_not(graph, images, chip or chip_of(profiles), mapping, must_fit)
        counts, _, _ = count_images(graph, images, progress, longer=False, placement=placement)
        found = {
            "spikes": counts.spikes / counts.images,
            "synaptic_operations": counts.synaptic_operations / counts.images,
            "rate": counts.spikes / counts.membrane_updates,
        }
    energy = {}
    for profile in profiles:
        spiking, memory = 0.0, NONE
        if counts is not None:
            one = estimate(counts, profile)
            spiking, memory = one.spiking, one.memory
        parts = artificial_energy(artificial, profile).values()
        ordinary = sum(arithmetic for arithmetic, _ in parts)
        memory = sum((traffic for _, traffic in parts), memory)
        total = spiking + ordinary
        energy[profile.name] = {
            "spiking": spiking if counts is not None else None,
            "artificial": ordinary,
            "total": total,
            "low": total + memory.low if profile.memory else None,
            "high": total + memory.high if profile.memory else None,
        }
    macs = sum(layer.macs for layers in artificial.values() for layer in layers)
    return {**found, "artificial_macs": macs, "energy": energy}


def artificial_layers(model: Any) -> dict[str, tuple[DenseLayer, ...]]:
    """The layers of the ordinary parts, for one image and one text of maximum length."""
    config = model.config
    image = torch.zeros(1, 3, config.image_size, config.image_size, device=model.device)
    text = torch.ones(1, config.max_text_length, dtype=torch.int64, device=model.device)
    return dense_layers(model, image, text, image_keys=[0])


def count_images(
    graph: SpikingGraph, images: Images, progress: bool, longer: bool = True, placement: Placement | None = None
) -> tuple[Counts, Counts, Latency | None]:
    """Counts over T steps, and over 2·T where ``longer``, each image from a reset state; the latency on a chip."""
    steps, counter, more = graph.time_steps, Counter(graph, placement), Counter(graph, placement)
    for part in _batches(graph, images, progress):
        state = counter.add(_spikes(graph, images, part))
        if longer:
            more.add(_spikes(graph, images, part, first_step=steps), state)
    counts = counter.counts()
    return counts, counts.then(more.counts()) if longer else counts, counter.latency()


def chip_of(profiles: Sequence[Profile]) -> Chip:
    """The chip that the profiles name, or Loihi 1.

    Raises:
        ConfigurationError: they name different chips.
    """
    names = {profile.chip for profile in profiles if profile.chip is not None}
    if len(names) > 1:
        raise ConfigurationError(
            f"the profiles name different chips ({', '.join(sorted(names))}): choose one by --chip"
        )
    return load_chip(names.pop() if names else DEFAULT)


def placed_or_not(
    graph: SpikingGraph, images: Images, chip: Chip, mapping: str, must_fit: bool
) -> tuple[Placement | None, dict[str, Any]]:
    """The placement by the spikes of the first images, or None and for JSON the reason why there is none."""
    check_mapping(mapping)  # not a reason why the model does not fit
    first = next(iter(_batches(graph, images, progress=False)))
    try:
        return place_by_spikes(graph, chip, mapping, _spikes(graph, images, first)), {}
    except ConfigurationError as error:
        if must_fit:
            raise
        return None, not_placed(chip, str(error))


def _group(model: Any, graph: SpikingGraph, images: Images, progress: bool) -> dict[str, Any] | None:
    """Groups of similar images, with the membranes carried on and reset; None for a single image."""
    size = min(graph.group_size, len(images))
    if size < 2:
        return None
    order, how = _similar(model, graph, images, size)
    found = {}
    for carry in ("group", "image"):
        counter = Counter(graph)
        starts = range(0, len(order), size)
        for start in tqdm(starts, desc=f"groups, carry = {carry}", leave=False, disable=not progress or None):
            counter.add(_spikes(graph, images, order[start : start + size]), group_size=size, carry=carry)
        found["carried" if carry == "group" else "reset"] = counter.counts().to_dict()
    return {"group_size": size, "images": len(order), "how": how, **found}


@torch.no_grad()
def _similar(model: Any, graph: SpikingGraph, images: Images, size: int) -> tuple[list[int], str]:
    whole = len(images) // size * size
    if not hasattr(model, "encode_image"):
        return list(range(whole)), "in the order of the images: the model has no ITC embeddings for grouping"
    embeds = torch.cat(
        [
            model.encode_image(images.pixels[part].to(model.device), [images.image_keys[i] for i in part])[0]
            for part in _batches(graph, images, progress=False)
        ]
    )
    groups = similar_groups(embeds.float().cpu().numpy(), size, SEED).groups
    return [int(i) for group in groups for i in group[:size]][:whole], "by similarity of ITC embeddings"


def _batches(graph: SpikingGraph, images: Images, progress: bool) -> Any:
    neurons = sum(layer.neurons for layer in graph.layers)
    size = min(BATCH, max(1, HELD // (neurons * graph.time_steps)))
    starts = range(0, len(images), size)
    bar = tqdm(starts, desc="counting spikes", unit="batch", leave=False, disable=not progress or None)
    return (list(range(start, min(start + size, len(images)))) for start in bar)


def _spikes(graph: SpikingGraph, images: Images, indices: list[int], first_step: int = 0) -> torch.Tensor:
    ids = [images.image_keys[i] for i in indices]
    return probabilistic_sampling(images.pixels[indices], ids, graph.time_steps, graph.encoding.seed, first_step)


def _curves(longer: Counts, counts: Counts, one: Estimate) -> dict[str, Any]:
    return {
        "profile": one.profile.name,
        "over_steps": over_steps(longer, one.profile),
        "over_rate": over_rate(counts, one.profile),
    }


def write_report(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write :data:`FILES`; returns their paths."""
    from ashnets.export.energy.html import page

    with result_folder(folder, REPORT, "keep") as aside:
        as_json, table, layers, html = (aside / name for name in FILES)
        write_json(as_json, report)
        write_csv(table, energy_rows(report))
        write_csv(layers, layer_rows(report))
        write_atomically(html, page(report).encode())
    return [folder / name for name in FILES]


def energy_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each profile and estimated part; pJ an image."""
    rows = []
    for one in report["estimates"]:
        spiking, named = one["spiking"], {"kind": "estimate", "model": one["model"], "profile": one["profile"]}

        def row(
            part: str,
            arithmetic: float,
            memory: dict[str, float] | None,
            named: dict = named,
            assumed: list[str] = one["assumptions"],
            **split: float,
        ) -> dict[str, Any]:
            bounds: dict[str, Any] = memory or {"low": "", "high": ""}
            return {
                **named,
                "part": part,
                "unit": "pJ an image",
                "synapse": split.get("synapse", ""),
                "neuron": split.get("neuron", ""),
                "routing": split.get("routing", ""),
                "without_memory": arithmetic,
                "with_memory_low": bounds["low"],
                "with_memory_high": bounds["high"],
                "data": report["data"]["source"],
                "assumptions": "; ".join(assumed),
            }

        memory = has_memory(one)
        split = {key: spiking[key] for key in ("synapse", "neuron", "routing")}
        rows.append(row("spiking branch", spiking["total"], spiking["total_with_memory"] if memory else None, **split))
        for key, label in (("dense_twin", "ANN of the same shape"), ("int8_twin", "the same ANN in int8")):
            rows.append(row(label, one[key], one[f"{key}_with_memory"] if memory else None))
        for part, value in one["artificial"].items():
            bounds = one["artificial_with_memory"][part] if memory else None
            rows.append(row(part.replace("_", " "), value, bounds))
    return rows


def layer_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each layer and way of counting; sums over the images counted."""
    ways = {"single, reset": report["counts"]}
    if report["group"]:
        ways |= {"group, carried": report["group"]["carried"], "group, reset": report["group"]["reset"]}
    return [
        {
            "model": counts["model"],
            "way": way,
            "images": counts["images"],
            "steps": counts["steps"],
            "group_size": counts["group_size"],
            "layer": layer["name"],
            "neurons": layer["neurons"],
            "weights": layer["weights"],
            "input_spikes": layer["input_spikes"],
            "spikes": layer["spikes"],
            "synaptic_operations": layer["synaptic_operations"],
            "membrane_updates": layer["membrane_updates"],
            "dense_macs": layer["dense_macs"],
            "dense_macs_padded": layer["dense_macs_padded"],
            **{f"rate_{key}": value for key, value in layer["rates"].items()},
        }
        for way, counts in ways.items()
        for layer in counts["layers"]
    ]


def has_memory(one: dict[str, Any]) -> bool:
    """Whether the profile of an estimate has memory levels."""
    return any(name.startswith("memory: ") for name in one["constants"])
