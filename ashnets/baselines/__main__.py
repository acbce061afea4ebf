"""Train ASH-Nets and its baselines with the same small budget, evaluate them, and write the results file.

    python -m ashnets.baselines --corpus data/pictograms --output runs/baselines --csv zoo/results/baselines.csv
    python -m ashnets.zoo.tables

It can be interrupted and run again: finished runs in the folder are not repeated. It takes about 40 minutes on an idle
core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ashnets.errors import AshNetsError
from ashnets.files import require_writable, write_csv


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ashnets.baselines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path("data/pictograms"), help="the pictogram corpus")
    parser.add_argument("--output", type=Path, default=Path("runs/baselines"), help="folder of the runs")
    parser.add_argument("--csv", type=Path, help="results file; by default baselines.csv in the folder of the runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all pre-training recipes")
    parser.add_argument("--sample", type=int, default=128, help="number of images for retrieval")
    parser.add_argument("--items", type=int, default=1000, help="number of questions for accuracy")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the benchmark of training steps")
    options = parser.parse_args()
    from ashnets.baselines.comparing import build_table

    target = options.csv or options.output / "baselines.csv"
    try:
        require_writable(target)
        found = build_table(
            options.corpus,
            options.output,
            overrides=options.set,
            sample=options.sample,
            items=options.items,
            rounds=options.rounds,
        )
        print(write_csv(target, found))
    except AshNetsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
