"""Models by name, counted and exported: what one costs, how several compare, the spiking encoder for another tool."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ashnets.errors import ConfigurationError
from ashnets.evaluation.embedding import embed_texts
from ashnets.export.energy.images import read_images
from ashnets.export.energy.profiles import load_profiles, profile_names
from ashnets.export.energy.report import REPORT, chip_of, count_and_estimate, energy_report, write_report
from ashnets.export.exporting import export_model, reads_texts
from ashnets.export.graph import NO_BRANCH
from ashnets.export.placement.chips import load_chip
from ashnets.export.placement.mapping import check_mapping
from ashnets.files import JsonObject, require_writable
from ashnets.hub.loading import from_pretrained
from ashnets.hub.resolving import resolve, weights_sha256
from ashnets.processor import FILES, AshNetsProcessor
from ashnets.zoo import comparing
from ashnets.zoo.gallery_images import Images, gallery_images, gallery_sentences
from ashnets.zoo.registry import config_of

TWO = ("45nm-int8", "loihi1-with-a100")  # profiles of a comparison


def energy(
    name: str | os.PathLike,
    *,
    images: str | os.PathLike | None = None,
    corpus: str | os.PathLike | None = None,
    splits: Sequence[str] = (),
    sample: int = 64,
    seed: int = 0,
    profiles: Sequence[str | os.PathLike] = (),
    chip: str | os.PathLike | None = None,
    mapping: str = "best",
    weights: str = "trained",
    output: str | os.PathLike | None = None,
    progress: bool = True,
) -> JsonObject:
    """Count what a model computes for an image, place it on a chip, and estimate its energy.

        ashnets.energy("ashnets-tiny", images="my-images", profiles=["45nm-int8"])

    Args:
        name: of a model, or its folder; it must have a spiking branch.
        images: a folder of images; by default the bundled gallery.
        corpus: instead, images with captions, in any form that ``open_source`` knows.
        splits: of the corpus; all by default.
        sample: how many images at most, drawn by ``seed``.
        seed: of the drawn images, and of random weights.
        profiles: names of hardware profiles, or files; by default all that are bundled.
        chip: name of a bundled chip, or a chip file; the model must fit it. By default the chip of the profiles, or
            Loihi 1; if the model does not fit, the report says so.
        mapping: of neurons to cores: ``best``, ``spatial`` or ``linear``.
        weights: ``trained``, or ``random``: calibrated on the images; the report says so.
        output: folder for ``energy.json``, ``energy.csv``, ``layers.csv`` and ``energy.html``.
        progress: show a bar.

    Returns:
        The report, the content of ``energy.json``; see :func:`ashnets.export.energy.report.energy_report`.

    Raises:
        UnknownModelError, WeightsError: no such model, or one without weights.
        ConfigurationError: an unusable profile, chip or mapping, two profiles of one name, no spiking branch, or
            options that do not fit.
        DataError, InputError: no images, or one that cannot be decoded.
        OutputError: ``output`` cannot be written.
    """
    if output is not None:
        require_writable(Path(output) / REPORT)
    _check_weights(weights)
    check_mapping(mapping)
    name, loaded = os.fspath(name), load_profiles(profiles or profile_names(every=True))
    config = config_of(name)
    if not config.has_spiking_branch:
        raise ConfigurationError(f"{name} {NO_BRANCH}; `ashnets compare` also counts models without one")
    on = chip_of(loaded) if chip is None else load_chip(os.fspath(chip))
    chosen = _images(config.image_size, images, corpus, splits, sample, seed)
    if weights == "random":
        model, label, digest = comparing.random_model(name, chosen, seed), comparing.RANDOM.format(seed=seed), None
    else:
        model, label = from_pretrained(name), f"trained: {comparing.weights_of(name)}"
        digest = weights_sha256(name)
    report = energy_report(
        model,
        chosen,
        loaded,
        name=name,
        weights=label,
        weights_sha256=digest,
        chip=on,
        mapping=mapping,
        must_fit=chip is not None,
        progress=progress,
    )
    if output is not None:
        write_report(report, Path(output))
    return report


def compare(
    names: Sequence[str | os.PathLike],
    *,
    images: str | os.PathLike | None = None,
    corpus: str | os.PathLike | None = None,
    splits: Sequence[str] = (),
    sample: int = 16,
    seed: int = 0,
    profiles: Sequence[str | os.PathLike] = TWO,
    chip: str | os.PathLike | None = None,
    mapping: str = "best",
    random_weights: bool = False,
) -> list[comparing.Compared]:
    """Compare models: configuration, parameters, MACs, spikes, estimated energy, and the results of the zoo.

        ashnets.compare(["ashnets-tiny", "ashnets-tiny-ann"])

    Args:
        names: of models, or their folders.
        images, corpus, splits, sample, seed, profiles, chip, mapping: as in `energy`.
        random_weights: count models without weights too, with random ones; the result says so.

    Raises:
        UnknownModelError: nothing answers to a name.
        ConfigurationError: a name is given twice, an unusable profile, chip or mapping, two profiles of one name,
            a model that does not fit the given chip, or options that do not fit.
        DataError, InputError: as in `energy`.
    """
    check_mapping(mapping)
    loaded = load_profiles(profiles)
    on = chip_of(loaded) if chip is None else load_chip(os.fspath(chip))

    def measure(model: Any, chosen: Images, name: str) -> JsonObject:
        return count_and_estimate(model, chosen, loaded, name=name, chip=on, mapping=mapping, must_fit=chip is not None)

    @cache
    def read(side: int) -> Images:
        return _images(side, images, corpus, splits, sample, seed)

    return comparing.compare_models(
        [os.fspath(name) for name in names],
        load=from_pretrained,
        count_and_estimate=measure,
        read=read,
        random_weights=random_weights,
    )


def export_encoder(
    name: str | os.PathLike,
    to: str,
    *,
    output: str | os.PathLike,
    quantize: bool = False,
    counts: bool = False,
    simulate: float | None = None,
    weights: str = "trained",
    seed: int = 0,
    images: str | os.PathLike | None = None,
    chip: str | os.PathLike | None = None,
    mapping: str = "best",
    python: str | os.PathLike | None = None,
    progress: bool = True,
) -> JsonObject:
    """Export the spiking encoder of a model to another tool, and compare every spike.

        ashnets.export_encoder("ashnets-tiny", "onnx", output="out/onnx")

    Args:
        name: of a model, its folder, or a Hub repository.
        to: ``lava``, ``onnx``, ``onnx-sequence``, ``onnx-unrolled``, ``nir``, ``sana-fe``; or ``onnx-model``, the whole
            model.
        output: a folder; the folder of an earlier export is replaced.
        quantize: round a model trained in floats to integers; its spikes change.
        counts: for ONNX: add the spikes of each layer as outputs.
        simulate: for lava and sana-fe: run the simulation for at most so many seconds.
        weights: ``trained``, or ``random``: calibrated on the images; every file of the export says so.
        seed: of random weights.
        images: folder of images that calibrate random weights; by default some of the bundled gallery.
        chip, mapping: for sana-fe: the chip and the mapping of neurons to its cores, as in `energy`.
        python: for sana-fe: a Python that has sanafe; the running one by default.
        progress: show a bar.

    Returns:
        The report, the content of ``report.json`` in the folder.

    Raises:
        UnknownModelError, WeightsError: no such model, or one without weights.
        ConfigurationError, MissingExtraError, InputError, AshNetsError: see
            :func:`ashnets.export.exporting.export_model`.
    """
    name = os.fspath(name)
    _check_weights(weights)
    digest = None
    if weights == "random":
        chosen = _images(config_of(name).image_size, images, None, (), comparing.CALIBRATED, seed)
        model, note = comparing.random_model(name, chosen, seed), comparing.RANDOM.format(seed=seed)
    elif images is not None:
        raise ConfigurationError("--images calibrates random weights: give it with --weights random, or leave it out")
    else:
        model, digest, note = from_pretrained(name), weights_sha256(name), None
    return export_model(
        model,
        to,
        output,
        name,
        quantize,
        counts,
        simulate,
        progress=progress,
        images=gallery_images(model.config.image_size),
        weights_sha256=digest,
        random_weights=note,
        chip=None if chip is None else load_chip(os.fspath(chip)),
        mapping=mapping,
        python=python,
        texts=_texts(name, model) if weights == "trained" and reads_texts(model, to) else None,
    )


def _texts(name: str, model: Any) -> tuple[list[str], torch.Tensor] | None:
    """The sentences of the bundled gallery, each once, with their embeddings for spikes; None without a processor."""
    if not (Path(resolve(name)) / FILES[0]).is_file():
        return None
    sentences = list(dict.fromkeys(gallery_sentences()))
    tokenizer = AshNetsProcessor.from_pretrained(name).tokenizer
    return sentences, embed_texts(model, tokenizer, sentences, for_spikes=True)


def _check_weights(weights: str) -> None:
    if weights not in ("trained", "random"):
        raise ConfigurationError(f"weights={weights!r} must be trained or random")


def _images(
    side: int,
    images: str | os.PathLike | None,
    corpus: str | os.PathLike | None,
    splits: Sequence[str],
    sample: int,
    seed: int,
) -> Images:
    folder, captioned = (None if one is None else Path(one) for one in (images, corpus))
    return read_images(side, comparing.gallery_unless(folder, captioned), captioned, splits, sample, seed)
