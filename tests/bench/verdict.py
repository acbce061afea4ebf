"""The end of a benchmark: pass or FAIL for each target, results as JSON, exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from ashnets.files import write_json


def conclude(rows: list[dict], reached: dict[str, bool], path: Path | None) -> NoReturn:
    """Print the targets, write ``path`` if it is given, and exit with 1 if a target was missed."""
    for target, met in reached.items():
        print(f"{'pass' if met else 'FAIL'}  {target}")
    if path:
        write_json(path, {"rows": rows, "targets": reached})
    sys.exit(not all(reached.values()))
