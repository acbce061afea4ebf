"""A training run whose second process fails: ``torchrun --nproc_per_node 2 failing_rank.py HOW RECIPE CORPUS OUTPUT``.

HOW: ``kill`` and ``delay`` act before the third optimizer step; ``corrupt`` gives the second process a copy of the
images that are cut short.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from ashnets.cli.app import main
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


def damaged(corpus: Path, copy: Path) -> Path:
    """The folder with every image cut short."""
    shutil.copytree(corpus, copy)
    for path in sorted(copy.glob("*.png")):
        path.write_bytes(path.read_bytes()[:60])
    return copy


if __name__ == "__main__":
    how, recipe, corpus, output = sys.argv[1:]
    if os.environ["RANK"] == "1":
        if how == "corrupt":
            corpus = str(damaged(Path(corpus), Path(output).with_name("copy")))
        else:
            fail(how)
    sys.exit(main(["train", recipe, "--corpus", corpus, "--output", output]))
