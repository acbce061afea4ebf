"""One row of an experiment with one seed, in a process of its own: `ashnets experiment --jobs` starts it.

It ends when its standard input is closed, as it is when the process that started it ends.

python -m ashnets.experiments EXPERIMENT SCALE DATA OUTPUT ROW SEED
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from ashnets.errors import AshNetsError
from ashnets.experiments.experiment import run_row


def main(arguments: list[str]) -> int:
    """Run the row; returns the exit status."""
    if len(arguments) != 6:
        print(f"usage: {(__doc__ or '').strip().splitlines()[-1]}", file=sys.stderr)
        return 2
    name, scale, data, output, row, seed = arguments
    try:
        run_row(name, scale, Path(data), Path(output), row, int(seed))
    except AshNetsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    sys.exit(main(sys.argv[1:]))
