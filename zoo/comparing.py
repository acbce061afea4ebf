"""Compare models: configuration, parameters, MACs, spikes, estimated energy, and recorded results.

A model without trained weights is labeled. Its spikes depend on the weights, so they mean nothing: they are counted
only on request, with random weights, and each such column is labeled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError
from ashnets.files import JsonObject, read_csv
from ashnets.model.pretrained import AshNetsPreTrainedModel
from ashnets.model.sampling import probabilistic_sampling
from ashnets.model.tdbn import calibrate
from ashnets.terminal import columns, table
from ashnets.zoo.counting import count_sizes
from ashnets.zoo.creating import create
from ashnets.zoo.gallery_images import FOLDER, Images
from ashnets.zoo.names import split
from ashnets.zoo.numbers import AS_IT_IS, over_seeds
from ashnets.zoo.registry import ROOT, config_of, entry, is_name

SEED = 0
CALIBRATED = 16  # images for the statistics of tdBN
NO_WEIGHTS = "no weights"
RANDOM = "RANDOM weights (seed {seed}), never trained; tdBN calibrated on the images counted"
RECALLS = ("R@1", "R@10")
RESULTS = ("split", "direction", "branch", "ranking", "images", "seed", *RECALLS, *(f"chance {k}" for k in RECALLS))


@dataclass(frozen=True)
class Compared:
    """One model of a comparison.

    Attributes:
        name: as it was given.
        weights: ``trained: TAG``, ``no weights``, or the label of random weights.
        configuration: all its keys.
        parameters: of the bare model.
        macs: part → dense MACs for an image and a text of maximum length; the spiking encoder over all T steps.
        measured: spikes and energy, from ``count_and_estimate``; None without weights.
        results: its rows in ``zoo/results``, with the keys ``RESULTS``, a row for each seed; measured here, never the
            paper's.
    """

    name: str
    weights: str
    configuration: JsonObject
    parameters: int
    macs: dict[str, int]
    measured: JsonObject | None = None
    results: list[dict[str, str]] = field(default_factory=list)


def compare_models(
    names: Sequence[str],
    *,
    load: Callable[[str], AshNetsPreTrainedModel],
    count_and_estimate: Callable[[AshNetsPreTrainedModel, Images, str], JsonObject],
    read: Callable[[int], Images],
    random_weights: bool = False,
) -> list[Compared]:
    """Compare models.

    Args:
        names: of the registry, or folders with a trained model.
        load: returns the model of a name, with its trained weights.
        count_and_estimate: returns spikes and energy of a model, from model, images and name.
        read: returns the images to count on, from their side in pixels.
        random_weights: also count untrained models, with random weights.

    Raises:
        UnknownModelError: no model has one of the names.
        ConfigurationError: a name is given twice.
    """
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{' '.join(names)}: a model is given twice; give each model once")
    configurations = [config_of(name) for name in names]  # before anything takes long
    found = []
    for name, config in zip(names, configurations, strict=True):
        tag = weights_of(name)
        weights, model = f"trained: {tag}" if tag else NO_WEIGHTS, None
        if tag:
            model = load(name)
        elif random_weights:
            weights, model = RANDOM.format(seed=SEED), random_model(name, read(config.image_size))
        counts = count_sizes(config)
        macs = dict(counts.macs)
        if step := macs.pop("abstract encoder, a step", 0):
            macs["abstract encoder, T dense passes"] = step * config.time_steps
        found.append(
            Compared(
                name=name,
                weights=weights,
                configuration={key: getattr(config, key) for key in AshNetsConfig.own_keys()}
                | {"num_hidden_layers": config.num_hidden_layers},
                parameters=counts.total,
                macs=macs,
                measured=None if model is None else count_and_estimate(model, read(config.image_size), name),
                results=results_of(name),
            )
        )
    return found


def random_model(name: str, images: Images, seed: int = SEED) -> AshNetsPreTrainedModel:
    """A model with random weights whose spiking layers fire: tdBN is calibrated on some of ``images``."""
    model: Any = create(name, seed=seed)
    if model.config.has_spiking_branch:
        config, encoder = model.config, model.vision.abstract_encoder
        pixels, ids = images.pixels[:CALIBRATED], images.image_keys[:CALIBRATED]
        spikes = probabilistic_sampling(pixels, ids, config.time_steps, config.sampling_seed)
        with torch.no_grad():
            calibrate(encoder, [spikes], run=encoder.run)
    return model


def results_of(name: str) -> list[dict[str, str]]:
    """The rows of a model in all files of retrieval results, by its name without tag: those of every seed."""
    if not is_name(name):
        return []  # a folder or a repository, whatever it is called
    bare = split(name).model
    found = []
    for path in sorted((ROOT / "results").glob("*.csv")):
        rows = [row for row in read_csv(path) if row.keys() >= {"model", *RESULTS} and row["model"] == bare]
        found += [{key: row[key] for key in RESULTS} for row in rows]
    return found


def to_dicts(models: Sequence[Compared]) -> list[JsonObject]:
    """For JSON."""
    return [asdict(model) for model in models]


def to_rows(models: Sequence[Compared]) -> list[list[str]]:
    """A row for each property: its name, then the value of each model; only those configuration keys that differ."""
    rows = [["weights", *(model.weights for model in models)]]
    for key in models[0].configuration:
        values = [model.configuration[key] for model in models]
        if key in ("time_steps", "image_size") or any(value != values[0] for value in values):
            rows.append([key, *map(_text, values)])
    rows.append(["parameters", *(f"{model.parameters:,}" for model in models)])
    for part in dict.fromkeys(part for model in models for part in model.macs):
        rows.append([f"MACs: {part}", *(_number(model.macs.get(part)) for model in models)])
    for key, label in (
        ("spikes", "spikes an image"),
        ("synaptic_operations", "synaptic operations an image"),
        ("rate", "spikes a neuron and step"),
    ):
        rows.append([label, *(_measured(model, key) for model in models)])
    for profile in dict.fromkeys(p for model in models if model.measured for p in model.measured["energy"]):
        for key, label in (
            ("spiking", "spiking branch"),
            ("artificial", "the other parts"),
            ("total", "in all"),
            ("low", "in all, memory low"),
            ("high", "in all, memory high"),
        ):
            values = [_energy(model, profile, key) for model in models]
            if any(value not in ("-", NO_WEIGHTS) for value in values):
                rows.append([f"{profile}, estimate: {label}", *values])
    for where in dict.fromkeys(_place(row) for model in models for row in model.results):
        found = [[row for row in model.results if _place(row) == where] for model in models]
        rows.append([f"R@1 / R@10: {where}", *(_recall(part) for part in found)])
    if any(model.results for model in models):
        rows.append(["seeds of R@1 / R@10", *map(_seeds, models)])
    return rows


def print_rows(models: Sequence[Compared]) -> None:
    """Print :func:`to_rows` as a table on stdout."""
    head = ["", *(model.name for model in models)]
    print(table(head, to_rows(models), [False] * len(head), columns()))


def weights_of(name: str) -> str | None:
    """The tag of a registry name's trained weights, or None without; ``a folder`` for any other name."""
    if not is_name(name):
        return "a folder"
    return entry(name).tag


def gallery_unless(images: Path | None, corpus: Path | None) -> Path | None:
    """``images``, or the bundled gallery if neither ``images`` nor ``corpus`` is given."""
    return FOLDER if images is None and corpus is None else images


def _measured(model: Compared, key: str) -> str:
    if model.measured is None:
        return NO_WEIGHTS
    value = model.measured[key]
    return "-" if value is None else f"{value:.3f}" if key == "rate" else f"{value:,.0f}"


def _energy(model: Compared, profile: str, key: str) -> str:
    if model.measured is None:
        return NO_WEIGHTS
    value = model.measured["energy"][profile][key]
    return "-" if value is None else f"{value / 1e6:,.4g} µJ"


def _place(row: dict[str, str]) -> str:
    """What is compared; the branch only of an ablation, since that of a whole model depends on the model."""
    branch = "" if row["branch"] in AS_IT_IS["branch"] else f"{row['branch']}, "
    return f"{row['split']}, {row['direction'].replace('_', ' ')}, {branch}{row['ranking']}, n {row['images']}"


def _recall(rows: list[dict[str, str]]) -> str:
    """Means over seeds with standard deviations, and chance."""
    if not rows:
        return "-"
    means = " / ".join(over_seeds([float(row[k]) for row in rows]) for k in RECALLS)
    return f"{means} (chance {' / '.join(rows[0][f'chance {k}'] for k in RECALLS)})"


def _seeds(model: Compared) -> str:
    return ", ".join(sorted({row["seed"] for row in model.results}, key=int)) or "-"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _text(value: object) -> str:
    return " ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)
