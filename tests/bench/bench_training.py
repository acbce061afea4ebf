"""Training pairs a second of ``tiny-pictograms``: as its recipe asks, against plain settings, in one run.

Plain is fp32, texts padded to the greatest length in every pass, one pass for all texts, and the CNN in torch's own
layout, and each batch read before its step instead of beside the one before. A call reads a batch of the recipe's size
and makes one optimizer step; each phase is a row. Images are those of the gallery, again and again, or of a corpus.

    python tests/bench/bench_training.py --corpus data/pictograms --output zoo/results/speed

Table and record: ``MACHINE/training.{csv,json}`` in the folder of the output.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import machine
import numpy as np
import torch
from images import GALLERY
from measuring import interleaved
from reporting import Report
from torch.nn.functional import pad

from ashnets.data.batches import Share
from ashnets.data.loading import load_epoch
from ashnets.data.sources.opening import open_source
from ashnets.training import pretrain
from ashnets.training.determinism import deterministic
from ashnets.training.loader import EpochBatches
from ashnets.training.means import Means
from ashnets.training.memory import keep_freed_memory
from ashnets.training.reading import load_recipe
from ashnets.training.run import Run
from ashnets.zoo.registry import recipe_path

OURS, PLAIN = "recipe", "plain settings"
SECTION, RECIPE, AIM = "training", "tiny-pictograms", 2.5
MOST = 1000  # steps of a phase
UNMEASURED = 1  # number of a step that does not also measure gradients, as step 0 does


def run_of(corpus: Path | None, *overrides: str) -> Run:
    """A run that writes nothing; on the gallery, whose two splits have other names."""
    splits = () if corpus else ("train=[seen, new]", "valid=new")
    recipe = load_recipe(recipe_path(RECIPE), [*splits, *overrides])
    return Run(recipe, open_source(corpus or GALLERY, recipe.hold_out), Path(), progress=False)


def stepping(run: Run, phase: int) -> Callable[[], None]:
    """A function that learns from one full batch while the next one is read."""
    coming = load_epoch(batches(run, MOST), 0, run.recipe.workers, pin=False)

    def step() -> None:
        run.learner.prepare(run.recipe.phases[phase])
        run.learner.optimize([next(coming)], UNMEASURED, Means())

    return step


def plain_step(run: Run, phase: int) -> None:
    """The same with plain texts; the run has plain settings."""
    with plain_texts():
        run.learner.prepare(run.recipe.phases[phase])
        batch, length = batches(run, 1).read(0), run.config.max_text_length
        more = (0, length - batch.input_ids.shape[1])
        wide: dict[str, Any] = {name: pad(getattr(batch, name), more) for name in ("input_ids", "attention_mask")}
        wide["special"] = pad(batch.special, more, value=True)
        run.learner.optimize([dataclasses.replace(batch, **wide)], UNMEASURED, Means())


def batches(run: Run, count: int) -> EpochBatches:
    """Batches of the recipe's size, of images that may repeat."""
    images, recipe = run.images, run.recipe
    order = np.concatenate(images.random_groups(0))
    share = Share(np.resize(order, recipe.batch_size), run.config.group_size)
    return images.batches([[share]] * count, 0)


@contextmanager
def plain_texts() -> Iterator[None]:
    """Passes at the width that they are given, and one for all texts."""
    with (
        mock.patch.object(pretrain, "trimmed", lambda *texts: texts),
        mock.patch.object(pretrain, "TOGETHER", sys.maxsize),
    ):
        yield


def contestants(
    corpus: Path | None, phase: int, runs: dict[str, Run], changes: Sequence[str]
) -> dict[str, Callable[[], None]]:
    """Name → one step of a phase."""
    for name, asked in ((OURS, ()), (PLAIN, ("precision=fp32",))):
        if name not in runs:
            runs[name] = run_of(corpus, *changes, *asked)
    for module in runs[PLAIN].learner.model.ashnets.vision.modules():
        module._forward_pre_hooks.clear()  # of the layout
    return {OURS: stepping(runs[OURS], phase), PLAIN: partial(plain_step, runs[PLAIN], phase)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="images to train on; the gallery's by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--output", type=Path, default=machine.OUTPUT, help="folder of the machines' folders")
    options = parser.parse_args(arguments)
    place = machine.describe()
    about = {"machine": place, "rounds": options.rounds, "freed_memory_is_kept": keep_freed_memory()}
    report, runs = Report(), dict[str, Run]()
    with deterministic(torch.device("cpu")):
        for number in range(2):
            calls = contestants(options.corpus, number, runs, options.set)
            recipe = runs[OURS].recipe
            case = f"{RECIPE}, {recipe.batch_size} pairs: {recipe.phases[number].name} phase"
            report.progress(f"{SECTION}: {case}")
            seconds = interleaved(calls, options.rounds)
            ratio = report.add_ratio(SECTION, case, f"{PLAIN} / {OURS}", seconds[PLAIN], seconds[OURS])
            report.aim(f"{SECTION}, {case}: faster {PLAIN} / {OURS}", ratio, at_least=AIM)
            report.note(f"{case}: pairs a second", {n: recipe.batch_size / min(s) for n, s in seconds.items()})
    report.note("precision", {"used": recipe.precision, "chosen": runs[OURS].chosen})
    report.print(f"{place['processor']}, {place['threads']} threads, load {place['load_at_start'][0]}")
    report.write(options.output / machine.folder(), SECTION, about)
    print(options.output / machine.folder())
    return int(not all(target.reached for target in report.targets))


if __name__ == "__main__":
    sys.exit(main())
