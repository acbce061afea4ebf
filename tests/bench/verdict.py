"""The end of a benchmark: each target with pass or FAIL, the figures as JSON, the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from ashnets.files import write_json


def conclude(rows: list[dict], reached: dict[str, bool], path: Path | None) -> NoReturn:
    """Print what was aimed at, write ``path`` if there is one, and leave with 1 if a target was missed."""
    for target, met in reached.items():
        print(f"{'pass' if met else 'FAIL'}  {target}")
    if path:
        write_json(path, {"rows": rows, "targets": reached})
    sys.exit(not all(reached.values()))
