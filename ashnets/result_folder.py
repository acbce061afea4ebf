"""A folder for a result: the whole result or none of it, wherever the folder may be.

A folder that does not exist yet is filled beside its place, ``.NAME.TOKEN.part``, and renamed. A folder that exists is
never renamed or removed: it may be a mounted volume, where a link points, or where a shell is. The result is made in a
hidden folder inside it, and then entries change places:

    .ashnets.TOKEN.part     being filled
    .ashnets.whole          finished; the old entries move to .ashnets.old, the mark first
    .ashnets.last           they are out; the new entries move in, the mark last

The mark is the file without which the folder is no result: nobody takes half of an exchange for a whole one. A process
that is killed in it leaves all entries, and the next one that writes there completes the exchange. What a dead process
left half filled is removed; a lock on the folder tells the dead from the living.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from ashnets.errors import OutputError
from ashnets.files import is_full, not_written

MODEL_MARK = "config.json"  # of a folder that from_pretrained loads
Existing = Literal["replace", "refuse", "keep"]

_INSIDE = ".ashnets"
_WHOLE, _LAST, _OLD = f"{_INSIDE}.whole", f"{_INSIDE}.last", f"{_INSIDE}.old"


@contextmanager
def result_folder(output: str | os.PathLike, mark: str, existing: Existing = "replace") -> Iterator[Path]:
    """An empty folder to fill; when the block ends without an error, what is in it becomes the content of ``output``.

    Enter it before the work begins: a place that cannot be written to is refused then. If the block fails, ``output``
    is as it was. Hidden entries of ``output`` and ``lost+found`` of a volume are nobody's result and always stay.

    Args:
        output: a folder, which may exist, or a link to one.
        mark: name of the file that makes the folder a result.
        existing: what becomes of an earlier result, a folder that holds ``mark``. ``replace``: all of it is replaced.
            ``refuse``: it is an error. ``keep``: entries of the same names are replaced, and all others stay,
            whosoever they are.

    Raises:
        OutputError: ``output`` is a file, holds other files, or an earlier result that is to be refused; it cannot be
            written; the disk is full. If the finished result cannot be put in its place, it is kept, and the message
            says where.
    """
    target = Path(os.path.realpath(output))
    try:
        if target.is_dir():
            with _locked(target):
                _exchange(target, mark, "keep")  # that a killed process began, of whatever kind
        check_place(output, mark, existing)
        aside, lock = _begin(target)
    except OSError as error:
        raise error if isinstance(error, OutputError) else not_written(output, error) from error
    try:
        try:
            yield aside
            _flush(aside)
        except BaseException as error:
            shutil.rmtree(aside, ignore_errors=True)
            if is_full(error):
                raise not_written(output, error) from error
            raise
        try:
            _put_in_place(aside, target, output, mark, existing)
        except OSError as error:
            place = _keep(aside, target)
            raise OutputError(
                f"{output}: the result is finished, but could not be put there ({error.strerror or error}). It is kept "
                f"in {place}: move it from there to where you want it"
            ) from error
    finally:
        if lock is not None:
            os.close(lock)


def check_place(output: str | os.PathLike, mark: str, existing: Existing = "replace") -> None:
    """Refuse what `result_folder` would refuse to fill; nothing is written.

    Raises:
        OutputError: ``output`` is a file, or holds other files, or an earlier result that is not to be replaced.
    """
    target = Path(os.path.realpath(output))
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{output} is a file: name a folder")
    names = entries(target)
    if existing == "keep" or not names or (target / _WHOLE).is_dir() or (target / _LAST).is_dir():
        return
    if mark not in names:
        raise OutputError(
            f"{output} holds something else ({min(names)}) and no {mark}: name another folder, or empty it"
        )
    if existing == "refuse":
        raise OutputError(f"{output} is there already, with a {mark} in it: name another folder, or remove this one")


def entries(folder: Path) -> list[str]:
    """Names of what may be a result."""
    return [name for name in os.listdir(folder) if not name.startswith(".") and name != "lost+found"]


def _begin(target: Path) -> tuple[Path, int | None]:
    """A new folder to fill, and the lock on it; those of dead processes are removed."""
    beside, inside = (target.parent, f".{target.name}"), (target, _INSIDE)
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder, stem in (beside, inside):
        with suppress(OSError):  # they do no harm where they cannot be seen or removed
            _remove_dead(folder, stem)
    folder, stem = inside if target.is_dir() else beside
    while True:
        aside = folder / f"{stem}.{secrets.token_hex(4)}.part"
        aside.mkdir()
        lock = _lock(aside)
        if aside.is_dir():  # and not taken for a dead one in the moment before the lock
            return aside, lock
        if lock is not None:
            os.close(lock)


def _remove_dead(folder: Path, stem: str) -> None:
    for name in os.listdir(folder):
        if re.fullmatch(rf"{re.escape(stem)}\.[0-9a-f]{{8}}\.part", name):
            lock = _lock(folder / name, wait=False)
            if lock is not None:
                shutil.rmtree(folder / name, ignore_errors=True)
                os.close(lock)


def _put_in_place(aside: Path, target: Path, output: str | os.PathLike, mark: str, existing: Existing) -> None:
    if not target.is_dir():
        try:
            aside.rename(target)
            return
        except OSError:
            if not target.is_dir():
                raise
    with _locked(target):  # of two that end together one waits, and replaces the other or is refused
        _exchange(target, mark, "keep")
        check_place(output, mark, existing)  # again: much may have happened during the work
        aside.rename(target / _WHOLE)
        _exchange(target, mark, existing)


def _exchange(folder: Path, mark: str, existing: Existing) -> None:
    """Bring a finished result in ``folder`` from any state of the exchange to its end."""
    whole, last, old = folder / _WHOLE, folder / _LAST, folder / _OLD
    if whole.is_dir():
        out = old / secrets.token_hex(4)  # what could not be removed the last time is not in the way
        out.mkdir(parents=True)
        new = os.listdir(whole)
        there = entries(folder)
        going = [name for name in there if name in new] if existing == "keep" else there
        for name in sorted(going, key=lambda name: name != mark):
            (folder / name).replace(out / name)
        whole.rename(last)
    if last.is_dir():
        for name in sorted(os.listdir(last), key=lambda name: name == mark):
            (last / name).replace(folder / name)
        last.rmdir()
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)


def _keep(aside: Path, target: Path) -> Path:
    """Where a finished result is that could not be put in its place; no later run removes it from there."""
    if not aside.is_dir():
        return target / (_LAST if (target / _LAST).is_dir() else _WHOLE)
    try:
        return aside.rename(aside.with_suffix(".whole"))
    except OSError:
        return aside


def _flush(folder: Path) -> None:
    """On the disk, not only on its way there: a power cut must not leave a whole name over half a file."""
    for path in (*sorted(folder.rglob("*")), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            if not path.is_dir():  # some file systems flush no folders
                raise
        finally:
            os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _lock(folder)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, wait: bool = True) -> int | None:
    """A lock that ends with this process, as the descriptor that holds it; None if there is none to be had."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return descriptor
    except OSError:  # held by another process, or a file system without locks
        if descriptor is not None:
            os.close(descriptor)
        return None
