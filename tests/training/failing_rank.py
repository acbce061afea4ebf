"""A training run whose second process fails: ``torchrun --nproc_per_node 2 failing_rank.py HOW RECIPE CORPUS OUTPUT``.

HOW: ``kill`` and ``delay`` act before the third optimizer step; ``corrupt`` gives the second process a copy of the
images that are cut short, and ``partly`` one with every third image cut short. Then each process writes what it planned
to ``OUTPUT/../planned-RANK.json``.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from ashnets.cli.app import main
from ashnets.training.images import TrainingImages
from ashnets.training.learner import Learner


def fail(how: str) -> None:
    """The second process stops before its third step."""
    optimize = Learner.optimize

    def stop_there(self: Learner, batches: list, number: int, means: object) -> None:
        if number == 2:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        optimize(self, batches, number, means)

    Learner.optimize = stop_there


def damaged(corpus: Path, copy: Path, every: int) -> Path:
    """The folder with every n-th image cut short."""
    shutil.copytree(corpus, copy)
    for path in sorted(copy.glob("*.png"))[::every]:
        path.write_bytes(path.read_bytes()[:60])
    return copy


def record_plans(path: Path) -> None:
    """Write the images of all planned shares, plan after plan, when the process ends."""
    plans: list[list[list[list[int]]]] = []
    plan = TrainingImages.plan

    def recorded(self: TrainingImages, groups: list) -> list:
        planned = plan(self, groups)
        plans.append([[share.indices.tolist() for share in shares] for shares in planned])
        return planned

    TrainingImages.plan = recorded
    atexit.register(lambda: path.write_text(json.dumps(plans)))


if __name__ == "__main__":
    how, recipe, corpus, output = sys.argv[1:]
    number = os.environ["RANK"]
    if how == "partly":
        record_plans(Path(output).with_name(f"planned-{number}.json"))
    if number == "1":
        if how in ("corrupt", "partly"):
            corpus = str(damaged(Path(corpus), Path(output).with_name("copy"), 3 if how == "partly" else 1))
        else:
            fail(how)
    sys.exit(main(["train", recipe, "--corpus", corpus, "--output", output]))
