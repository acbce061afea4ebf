"""Which way to a model of one's own images: as it is, own-pairs, or own-photographs, on Tux Paint's stamps.

    ashnets data stamps --only photographs --output data/stamps-photographs
    ashnets data stamps --only drawings --output data/stamps-drawings
    python tests/bench/own_images.py data/stamps-photographs data/stamps-drawings

Each way is measured on the split ``test``, which no run has seen, beside chance and beside the same model with a blank
image in place of every image. ``core seconds`` is the time of all threads, which other programs do not change. A run
that is finished is not repeated, and two processes may share the work by folder.
``--table`` writes all finished rows to ``zoo/results/own-images.csv``.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import ashnets
from ashnets.device import own_device
from ashnets.environment import environment
from ashnets.evaluation.options import RESET, EvaluationOptions, Variant
from ashnets.evaluation.own_images import OwnImages
from ashnets.evaluation.retrieval import RetrievalSet, rank
from ashnets.evaluation.two_stage import WAYS
from ashnets.files import JsonObject, Row, read_csv, write_atomically, write_csv, write_json
from ashnets.hub.loading import from_pretrained
from ashnets.processor import AshNetsProcessor
from ashnets.training.reading import load_recipe
from ashnets.zoo.registry import ROOT, recipe_path

AS_IT_IS = "as it is"
WAYS_TO_A_MODEL = (AS_IT_IS, "own-pairs", "own-photographs")
RESULTS = ROOT / "results" / "own-images.csv"
OPTIONS = EvaluationOptions(progress=False)


def measure(model: str | Path, folder: Path) -> list[Row]:
    """A row for each direction: n, recalls, chance, and recalls with a blank image."""
    loaded = from_pretrained(model, task="retrieval").to(own_device())
    tokenizer = AshNetsProcessor.from_pretrained(model).tokenizer
    measured = RetrievalSet.of_pairs(OwnImages(folder).pairs("test", loaded.config.image_size))
    seen, blind = (
        rank(loaded, tokenizer, measured, one, OPTIONS).main.recalls for one in (RESET, Variant(constant=True))
    )
    return [
        {
            "direction": way,
            "n": len(measured.indices),
            **{name: round(share, 4) for name, share in seen[way].items()},
            **{f"chance {name}": round(share, 4) for name, share in measured.chance[way].items()},
            **{f"blank {name}": round(share, 4) for name, share in blind[way].items()},
        }
        for way in WAYS
    ]


def part_of(folder: Path, images: int, place: Path) -> Path:
    """A folder with ``images`` training images and all test images of ``folder``."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    train = [row for row in rows if row["split"] == "train"]
    kept = [*random.Random(0).sample(train, images), *(row for row in rows if row["split"] == "test")]
    for row in kept:
        (place / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / row["file_name"], place / row["file_name"])
    write_atomically(place / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())
    return place


def scaled(recipe: str, rate: float) -> list[str]:
    """Changes of the recipe that multiply all its learning rates."""
    if rate == 1:
        return []
    optimizers = load_recipe(recipe_path(recipe), []).optimizers
    return [f"optimizers.{part}.lr={rate * one.lr:g}" for part, one in optimizers.items()]


def run(folder: Path, way: str, seed: int, rate: float, images: int | None, out: Path) -> list[Row]:
    """Train, if the way asks for it, and measure; the rows are kept in ``out``."""
    about: JsonObject = {"data": folder.name, "way": way, "rate": rate, "seed": seed}
    name = f"{folder.name}-{way.replace(' ', '-')}-x{rate:g}-{images or 'all'}-{seed}"
    kept = out / f"{name}.json"
    if kept.is_file():
        return list(json.loads(kept.read_text(encoding="utf-8")))
    data = folder if images is None else part_of(folder, images, out / "parts" / f"{folder.name}-{images}")
    spent: JsonObject = {"trained on": 0, "core seconds": 0, "precision": "fp32"}
    model: str | Path = "ashnets-tiny"
    if way != AS_IT_IS:
        overrides = [f"seed={seed}", *scaled(way, rate)]
        shutil.rmtree(out / name, ignore_errors=True)  # of a killed process
        began = time.process_time()
        record = ashnets.train(way, output=out / name, corpus=data, overrides=overrides, progress=False)
        spent = {
            "trained on": record["learned_from"]["images"],
            "core seconds": round(time.process_time() - began),
            "precision": record["precision"],
        }
        model = out / name / "model"
    rows = [{**about, **row, **spent, **environment()} for row in measure(model, data)]
    write_json(kept, rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="made by `ashnets data stamps`")
    parser.add_argument("--ways", nargs="+", choices=WAYS_TO_A_MODEL, default=WAYS_TO_A_MODEL)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0], help="factors of all learning rates")
    parser.add_argument("--images", type=int, nargs="+", help="numbers of training images; all by default")
    parser.add_argument("--output", type=Path, default=Path("out/own-images"), help="folder of the runs")
    parser.add_argument("--table", action="store_true", help=f"write all finished rows to {RESULTS.name}")
    options = parser.parse_args(arguments)
    for seed in options.seeds:
        for folder in options.folders:
            for way in options.ways:
                for rate in options.rates if way != AS_IT_IS else [1.0]:
                    for images in options.images or [None]:
                        if way != AS_IT_IS or (seed == options.seeds[0] and images is None):
                            for row in run(folder, way, seed, rate, images, options.output):
                                print(json.dumps(row), flush=True)
    if options.table:
        rows = [row for file in sorted(options.output.glob("*.json")) for row in json.loads(file.read_text())]
        write_csv(RESULTS, sorted(rows, key=itemgetter("data", "way", "rate", "trained on", "seed")))
        print(f"{RESULTS}: {len(read_csv(RESULTS))} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
