"""Files: a result is written aside first, then renamed, so that a reader never meets half a file."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ashnets.errors import ConfigurationError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # what such files hold is never loaded

# The names that transformers gives to weights: one file, shards, and the index of shards.
_WEIGHTS = re.compile(
    r"model(\.(?P<one>.+?))?(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index(\.(?P<index>.+))?\.json"
)


def variants(names: Iterable[str]) -> set[str]:
    """The variants whose weights are among file names: ``fp16`` of ``model.fp16.safetensors``, ``""`` without one."""
    found = map(_WEIGHTS.fullmatch, names)
    return {match["one"] or match["index"] or "" for match in found if match}


def replaced_weights(present: Iterable[str], written: Iterable[str]) -> list[str]:
    """Of the names that are present, older weights of the variants that were just written.

    They must go: one file would be loaded in place of newer shards.
    """
    written = set(written)
    return sorted(name for name in set(present) - written if variants([name]) & variants(written))


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


@contextmanager
def saved_aside(folder: str | os.PathLike) -> Iterator[Path]:
    """A folder to write files to: after the block they replace those of the same names in ``folder``, which is made.

    Older weights that the new ones replace are removed, see :func:`replaced_weights`; nothing else is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as aside:
        yield Path(aside)
        written = sorted(os.listdir(aside))
        for name in written:
            os.replace(Path(aside) / name, folder / name)
    for name in replaced_weights((path.name for path in folder.iterdir() if path.is_file()), written):
        (folder / name).unlink(missing_ok=True)


def cache_folder(part: str) -> Path:
    """Where what can be made again is kept: a folder in ``$ASHNETS_CACHE``, else ``$XDG_CACHE_HOME/ashnets`` or
    ``~/.cache/ashnets``. Raises ConfigurationError for a user without a home folder who sets neither."""
    if own := os.environ.get("ASHNETS_CACHE"):
        return Path(own) / part
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home("ASHNETS_CACHE") / ".cache") / "ashnets" / part


def has_home() -> bool:
    """Whether this user has a home folder: without HOME and an entry in passwd, as in a container, there is none."""
    return os.path.expanduser("~") != "~"


def home(instead: str) -> Path:
    """The user's home folder. Raises ConfigurationError, which names the variable to set ``instead``, without one."""
    if not has_home():
        raise ConfigurationError(
            f"this user has no home folder, neither in HOME nor in passwd: let {instead} name a folder "
            "that may be written to"
        )
    return Path.home()


def write_json(path: str | os.PathLike, data: Any) -> Path:
    """Write ``data`` as readable JSON; what JSON does not know, such as a path, is written as its text."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n"
    return write_atomically(path, text.encode(errors="backslashreplace"))  # \udcff, as JSON itself escapes it


def write_csv(path: str | os.PathLike, rows: list[dict[str, Any]]) -> Path:
    """Write ``rows``, which share their keys, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_atomically(path, text.getvalue().encode(errors="backslashreplace"))
