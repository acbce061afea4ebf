"""Files: a result is written aside first, then renamed, so that a reader never meets half a file."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ashnets.errors import ConfigurationError, OutputError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # what such files hold is never loaded
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

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
    """Write ``data`` to ``path``, making its folder; on any failure the old file, if there is one, stays.

    What a link points to is written, and the link stays; the file keeps its permissions. A device or a pipe, such as
    ``/dev/stdout``, receives the bytes as they are.

    Raises:
        OutputError: the disk is full, or the folder takes no new file.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return path
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.part")
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


def require_writable(path: str | os.PathLike) -> None:
    """Raise at once the OutputError that writing the file ``path`` would end in; nothing stays of the attempt.

    A folder that is not there yet is not made: the nearest one above it must take a new file.
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
    """Whether a disk, a quota or a limit took no more; some libraries say so in their message alone."""
    return getattr(error, "errno", None) in _FULL or any(os.strerror(code) in str(error) for code in _FULL)


def not_written(path: str | os.PathLike, error: BaseException) -> OutputError:
    """The error for a result that could not be written, with the remedy."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
    if is_full(error):
        remedy = "make room or choose another place; what was there before is unchanged"
    elif getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "a result is written beside its place and renamed: choose a folder in which you may make files"
    elif getattr(error, "errno", None) == errno.EBUSY:
        remedy = "it is mounted by itself and cannot be replaced: mount its folder, or choose another place"
    else:
        remedy = "choose another place"
    return OutputError(f"{path} cannot be written ({reason}): {remedy}")


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
