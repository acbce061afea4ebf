"""Files: a result is written aside first, then renamed, so that a reader never meets half a file."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # what such files hold is never loaded


def write_atomically(path: str | os.PathLike, data: bytes) -> Path:
    """Write ``data`` to ``path``, making its folder; on any failure the old file, if there is one, stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def cache_folder(part: str) -> Path:
    """Where what can be made again is kept: a folder in ``$ASHNETS_CACHE``, else ``$XDG_CACHE_HOME/ashnets`` or
    ``~/.cache/ashnets``."""
    if own := os.environ.get("ASHNETS_CACHE"):
        return Path(own) / part
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ashnets" / part


def write_json(path: str | os.PathLike, data: Any) -> Path:
    """Write ``data`` as readable JSON; what JSON does not know, such as a path, is written as its text."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n"
    return write_atomically(path, text.encode())


def write_csv(path: str | os.PathLike, rows: list[dict[str, Any]]) -> Path:
    """Write ``rows``, which share their keys, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_atomically(path, text.getvalue().encode())
