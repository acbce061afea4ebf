"""Throughput of whole models, relative to the same model without spikes and to ResNet-18 on the same images.

In each round, every candidate processes one batch of images with texts of maximum length. A ratio is the median of the
ratios of all rounds, with their quartiles. Absolute numbers are not stored: on a CPU they depend more on the machine
than on the model. Weights are random, which does not change the time: all computations are dense, whatever the number
of spikes. ResNet-18 is that of transformers with its classifier, for images only.

    python tests/bench/bench_throughput.py --output zoo/results/throughput.csv     # then: python -m ashnets.zoo.numbers

The rows of other models in the file are kept.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import torch
from measuring import interleaved, quartiles, ratios
from rich.console import Console
from rich.table import Table
from transformers import ResNetConfig, ResNetForImageClassification

from ashnets.files import JsonObject, read_csv, write_csv
from ashnets.zoo import config_of, create, entry

MODELS = ["ashnets-tiny", "ashnets-r18", "ashnets-r101", "ashnets-r152", "ashnets-vit-b16"]
RESNET18 = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
BASELINE, TWIN = "resnet18", "ann"
OUTPUT = machine.OUTPUT / "throughput.csv"
Call = Callable[[], Any]


def candidates(names: Sequence[str], batch: int, seed: int) -> dict[str, Call]:
    """Name → inference on one batch, for models of one architecture, and for ResNet-18 (``BASELINE``)."""
    config = config_of(names[0])
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 3, config.image_size, config.image_size, generator=draw)
    words = torch.randint(1, config.vocab_size, (batch, config.max_text_length), generator=draw)
    torch.manual_seed(seed)
    baseline = ResNetForImageClassification(ResNetConfig(**RESNET18, num_labels=1000)).eval()

    def of(name: str) -> Call:
        model = create(name, seed=seed)
        return torch.inference_mode()(
            lambda: model(pixel_values=images, input_ids=words, image_keys=list(range(batch)))
        )

    return {BASELINE: torch.inference_mode()(lambda: baseline(images)), **{name: of(name) for name in names}}


def benchmark(names: Sequence[str], batch: int, rounds: int, seed: int) -> list[JsonObject]:
    """A row for each of several models of one architecture; the model without spikes is always included."""
    twin = next(
        name
        for name in (f"{entry(names[0]).architecture}{form}-ann" for form in ("", "-l3"))
        if config_of(name).num_hidden_layers == config_of(names[0]).num_hidden_layers
    )
    seconds = interleaved(candidates(list(dict.fromkeys([*names, twin])), batch, seed), rounds)
    place, config = machine.describe(), config_of(names[0])
    rows = []
    for name in (name for name in seconds if name != BASELINE):
        row: JsonObject = {"model": name}
        for title, other in ((BASELINE, seconds[BASELINE]), (TWIN, seconds[twin])):
            found = quartiles(ratios(other, seconds[name]))  # ratio of speeds: the time of the other, divided by ours
            keys = (f"ratio_{title}", f"low_{title}", f"high_{title}")
            row |= dict(zip(keys, (f"{value:.4g}" for value in found), strict=True))
        rows.append(
            row
            | {
                "batch": batch,
                "image_size": config.image_size,
                "text_tokens": config.max_text_length,
                "rounds": rounds,
                "seed": seed,
                "weights": "random",
                "device": place["processor"],
                "threads": place["threads"],
                "kernels": place["kernels"].rpartition(".")[2],
                "python": platform.python_version(),
                **{lib: place["versions"][lib] for lib in ("ashnets", "torch", "transformers")},
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help=f"names; default: {' '.join(MODELS)}")
    parser.add_argument("--batch", type=int, default=4, help="number of images and texts in a batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="CSV file; its other rows are kept")
    options = parser.parse_args(arguments)
    kin: dict[tuple[str, int], list[str]] = {}
    for name in options.models:
        kin.setdefault((entry(name).architecture, config_of(name).num_hidden_layers), []).append(name)
    rows = {row["model"]: row for row in read_csv(options.output)}
    table = Table(title=f"{machine.describe()['processor']}, batch {options.batch}, {options.rounds} rounds")
    for title in ("model", "÷ ResNet-18", "quartiles", "÷ its -ann", "quartiles"):
        table.add_column(title, justify="left" if title == "model" else "right")
    for names in kin.values():
        for row in benchmark(names, options.batch, options.rounds, options.seed):
            rows[row["model"]] = row
            cells = (f"{row[f'ratio_{one}']}|{row[f'low_{one}']} to {row[f'high_{one}']}" for one in (BASELINE, TWIN))
            table.add_row(row["model"], *"|".join(cells).split("|"))
        write_csv(
            options.output, list(rows.values())
        )  # after each architecture, so that an interruption loses only one
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
