"""A folder for a result: the complete result or nothing.

A new folder is first filled under another name next to it, ``.NAME.TOKEN.part``, and then renamed. An existing folder
is never renamed or removed: it may be a mounted volume, the target of a link, or the current folder of a shell. Its
result is made in a hidden folder inside it, and then the entries are exchanged:

    .ashnets.TOKEN.part     being filled
    .ashnets.whole          complete; the old entries that it replaces are moved to .ashnets.old, the mark first
    .ashnets.instead        the same, but it replaces all old entries
    .ashnets.last           the old entries are out; the new entries are moved in, the mark last

The mark is the file without which a folder is no result, so that a half-finished exchange is never taken for a result.
A process that is killed during the exchange loses no entry, and the next process that writes there completes it; see
:func:`complete`.
Unfinished folders of dead processes are removed; a lock on the folder shows whether its process is alive.
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
from ashnets.files import is_full, not_written, replaced_weights

MODEL_MARK = "config.json"  # of a folder that from_pretrained loads
Existing = Literal["replace", "refuse", "keep"]

_INSIDE = ".ashnets"
_WHOLE, _INSTEAD, _LAST, _OLD = (f"{_INSIDE}.{state}" for state in ("whole", "instead", "last", "old"))
_filling: set[Path] = set()  # the folders that this process fills, and has locked


@contextmanager
def result_folder(output: str | os.PathLike, mark: str, existing: Existing = "replace") -> Iterator[Path]:
    """An empty folder to fill; if the block ends without an error, its content becomes that of ``output``.

    Enter the block before the work starts: it refuses a place that cannot be written. If the block fails, ``output`` is
    unchanged. Hidden entries of ``output``, and ``lost+found`` of a volume, are no part of a result and always stay.

    Args:
        output: a folder, which may exist, or a link to one.
        mark: name of the file that makes the folder a result.
        existing: what to do with an earlier result, a folder that contains ``mark``. ``replace``: replace all of it.
            ``refuse``: raise an error. ``keep``: replace only entries of the same names, and older weights of the same
            variants (:func:`~ashnets.files.replaced_weights`).

    Raises:
        OutputError: ``output`` is a file, contains other files, or is an earlier result to be refused; it cannot be
            written; the disk is full. If the finished result cannot be moved to ``output``, it is kept, and the message
            names its place.
    """
    target = Path(os.path.realpath(output))
    try:
        complete(target, mark)
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
                f"{output}: the result is finished, but cannot be moved there ({error.strerror or error}). It is kept "
                f"in {place}: move it from there"
            ) from error
    finally:
        _filling.discard(aside)
        if lock is not None:
            os.close(lock)


def complete(folder: Path, mark: str) -> None:
    """Complete the exchange of a killed process in ``folder``, if there is one; wait for that of a living process."""
    if _unfinished(folder):
        with _locked(folder):
            _exchange(folder, mark)


def _unfinished(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in (_WHOLE, _INSTEAD, _LAST))


def check_place(output: str | os.PathLike, mark: str, existing: Existing = "replace") -> None:
    """Raise if `result_folder` would refuse this place; nothing is written.

    Raises:
        OutputError: ``output`` is a file, contains other files, or is an earlier result that must not be replaced.
    """
    target = Path(os.path.realpath(output))
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{output} is a file: name a folder")
    names = entries(target)
    if existing == "keep" or not names or _unfinished(target):
        return
    if mark not in names:
        raise OutputError(
            f"{output} contains something else ({min(names)}) and no {mark}: name another folder, or empty it"
        )
    if existing == "refuse":
        raise OutputError(f"{output} is there already, with a {mark} in it: name another folder, or remove this one")


def entries(folder: Path) -> list[str]:
    """Names of the entries that may belong to a result."""
    return [name for name in os.listdir(folder) if not name.startswith(".") and name != "lost+found"]


def _begin(target: Path) -> tuple[Path, int | None]:
    """A new folder to fill, and its lock; folders of dead processes are removed."""
    beside, inside = (target.parent, f".{target.name}"), (target, _INSIDE)
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder, stem in (beside, inside):
        with suppress(OSError):  # folders that cannot be listed or removed do no harm
            _remove_dead(folder, stem)
    folder, stem = inside if target.is_dir() else beside
    while True:
        aside = folder / f"{stem}.{secrets.token_hex(4)}.part"
        aside.mkdir()
        lock = _lock(aside)
        if aside.is_dir():  # another process may have removed it before it was locked
            _filling.add(aside)
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
    with _locked(target):  # if two processes end together, the second waits, then replaces the first or is refused
        _exchange(target, mark)
        check_place(output, mark, existing)  # again: the folder may have changed during the work
        aside.rename(target / (_WHOLE if existing == "keep" else _INSTEAD))
        _exchange(target, mark)


def _exchange(folder: Path, mark: str) -> None:
    """Complete the exchange of a finished result in ``folder``, from any of its states."""
    last, old = folder / _LAST, folder / _OLD
    whole = next((folder / name for name in (_WHOLE, _INSTEAD) if (folder / name).is_dir()), None)
    if whole is not None:
        out = old / secrets.token_hex(4)  # a new name: older entries may be left that could not be removed
        out.mkdir(parents=True)
        new, there = os.listdir(whole), entries(folder)
        going = {*there} & {*new, *replaced_weights(there, new)} if whole.name == _WHOLE else there
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
    """The place of a finished result that could not be moved; no later run removes it from there."""
    if not aside.is_dir():
        return next(target / name for name in (_LAST, _INSTEAD, _WHOLE) if (target / name).is_dir())
    try:
        return aside.rename(aside.with_suffix(".whole"))
    except OSError:
        return aside


def _flush(folder: Path) -> None:
    """Write everything to the disk: a power failure must not leave a final name with an incomplete file."""
    for path in (*sorted(folder.rglob("*")), folder):
        if sys.platform == "win32" and path.is_dir():  # a folder cannot be opened there
            continue
        descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            if not path.is_dir():  # some file systems cannot flush folders
                raise
        finally:
            os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = None if folder in _filling else _lock(folder)  # a second lock would wait for the first one forever
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, wait: bool = True) -> int | None:
    """A lock that ends with this process, as a file descriptor; None if it cannot be obtained."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return descriptor
    except OSError:  # locked by another process, or a file system without locks
        if descriptor is not None:
            os.close(descriptor)
        return None
