"""Files: a result is first written to a temporary file, then renamed, so that a file is never incomplete."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ashnets.errors import ConfigurationError, OutputError

JsonObject = dict[str, Any]  # an object of JSON; the function that returns one names its keys
Row = dict[str, str | int | float | None]  # of a table or a CSV file: column → cell

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # such files are never loaded
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# transformers' file names for weights: one file, shards, and the index of shards.
_WEIGHTS = re.compile(
    r"model(\.(?P<one>.+?))?(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index(\.(?P<index>.+))?\.json"
)


def variants(names: Iterable[str]) -> set[str]:
    """The weight variants among file names: ``fp16`` for ``model.fp16.safetensors``, ``""`` for no variant."""
    found = map(_WEIGHTS.fullmatch, names)
    return {match["one"] or match["index"] or "" for match in found if match}


def replaced_weights(present: Iterable[str], written: Iterable[str]) -> list[str]:
    """The present names that are older weights of the variants just written.

    They must be removed: an old single file would be loaded instead of newer shards.
    """
    written = set(written)
    return sorted(name for name in set(present) - written if variants([name]) & variants(written))


def write_atomically(path: str | os.PathLike, data: bytes) -> Path:
    """Write ``data`` to ``path`` and create its folder; on failure an existing file is unchanged.

    Links are followed and stay; the file keeps its permissions. A device or a pipe, such as ``/dev/stdout``, is written
    to directly.

    Raises:
        OutputError: the disk is full, or no file can be created in the folder.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return path
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            aside.write_bytes(data)
            if target.exists():
                shutil.copymode(target, aside)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, error) from error
    return path


def require_writable(path: str | os.PathLike) -> None:
    """Raise OutputError now if the file ``path`` cannot be written later; nothing is left behind.

    Missing folders are not created: it must be possible to create a file in the nearest existing folder above.
    """
    if Path(path).exists() and not Path(path).is_file():
        return
    target = Path(os.path.realpath(path))
    folder = next(one for one in target.parents if os.path.lexists(one))
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{target.name}."):
            pass
    except OSError as error:
        raise not_written(path, error) from error


def is_full(error: BaseException) -> bool:
    """Whether the disk, the quota or a size limit is exhausted; some libraries report this only in the message."""
    return getattr(error, "errno", None) in _FULL or any(os.strerror(code) in str(error) for code in _FULL)


def not_written(path: str | os.PathLike, error: BaseException) -> OutputError:
    """The error for a result that could not be written, with the remedy.

    Of an OutputError for a part of it, such as a temporary folder that is gone, only the cause is told.
    """
    while isinstance(error, OutputError) and error.__cause__ is not None:
        error = error.__cause__
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
    if is_full(error):
        remedy = "make room or choose another place; existing files are unchanged"
    elif getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "choose a folder in which you may create files, since results are written there and renamed"
    elif getattr(error, "errno", None) == errno.EBUSY:
        remedy = "it is a mount point and cannot be replaced: mount its folder, or choose another place"
    else:
        remedy = "choose another place"
    return OutputError(f"{path} cannot be written ({reason}): {remedy}")


def cache_folder(part: str) -> Path:
    """Folder for files that can be made again, in ``$ASHNETS_CACHE``, else in ``$XDG_CACHE_HOME/ashnets`` or
    ``~/.cache/ashnets``. Raises ConfigurationError if neither is set and the user has no home folder."""
    if own := os.environ.get("ASHNETS_CACHE"):
        return Path(own) / part
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home("ASHNETS_CACHE") / ".cache") / "ashnets" / part


def has_home() -> bool:
    """Whether this user has a home folder; in a container, HOME and the entry in passwd may both be missing."""
    return os.path.expanduser("~") != "~"


def home(instead: str) -> Path:
    """The user's home folder. Without one it raises ConfigurationError, which names the variable to set ``instead``."""
    if not has_home():
        raise ConfigurationError(
            f"this user has no home folder, neither in HOME nor in passwd: set {instead} to a folder "
            "in which you may write"
        )
    return Path.home()


def write_json(path: str | os.PathLike, data: object) -> Path:
    """Write ``data`` as indented JSON; values of other types, such as paths, are written as text."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n"
    return write_atomically(path, text.encode(errors="backslashreplace"))  # \udcff, as JSON itself escapes it


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8, each as ``{column: text}``; an empty list if there is no such file."""
    if not os.path.isfile(path):
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write ``rows``, which all have the same keys, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_atomically(path, text.getvalue().encode(errors="backslashreplace"))
