"""What lies below a folder, and files opened with care: other people's folders hold more than files."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ashnets.errors import DataError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Folder:
    """Entries below a folder; paths are relative to it, with ``/``. Hidden entries are left out, links to folders not
    followed.

    Attributes:
        root: what the paths are relative to.
        files: path → entry, of regular files and links to them, in alphabetic order.
        closed: path → why, of folders that cannot be listed and entries that cannot be looked at: what was known of
            them may still hold.
        odd: path → why, of entries that are neither file nor folder: named pipes, sockets, devices, links to nowhere.
    """

    root: str
    files: dict[str, os.DirEntry[str]] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)

    def faults(self, wanted: Callable[[str], bool]) -> dict[str, str]:
        """Path → a sentence that names it, of all that is closed and of the odd entries whose path is ``wanted``."""
        found = {**self.closed, **{path: why for path, why in self.odd.items() if wanted(path)}}
        return {path: f"{printable(os.path.join(self.root, path))} {found[path]}" for path in sorted(found)}


def walk(root: str | os.PathLike) -> Folder:
    """List a folder with its sub-folders. Raises DataError where ``root`` itself cannot be listed."""
    found = Folder(os.fspath(root))
    files: dict[str, os.DirEntry[str]] = {}
    pending = [""]
    while pending:
        part = pending.pop()
        try:
            with os.scandir(os.path.join(root, part)) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = f"{part}{entry.name}"
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{path}/")
                        elif entry.is_file():
                            files[path] = entry
                        elif not entry.is_dir():
                            found.odd[path] = f"is {kind(entry.stat().st_mode)}, no file"
                    except FileNotFoundError:
                        if entry.is_symlink():  # else it has gone since it was listed
                            found.odd[path] = "is a link to nowhere"
                    except OSError as error:
                        found.closed[path] = f"cannot be read ({reason(error)})"
        except OSError as error:
            if not part:
                raise DataError(f"{printable(root)} cannot be read ({reason(error)})") from None
            found.closed[part[:-1]] = f"cannot be read ({reason(error)})"
    found.files.update(sorted(files.items()))
    return found


def read_file(path: str | os.PathLike, limit: int | None = None) -> bytes:
    """The bytes of a regular file. A named pipe, which could make a process wait for ever, is never opened.

    Raises:
        OSError: it cannot be read, is of another kind, or holds more than ``limit`` bytes; ``strerror`` says which.
    """
    _require_file(path, os.stat(path))  # before it is opened: to open a device can have effects
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        _require_file(path, found)  # once more: it may have been replaced
        if limit is not None and found.st_size > limit:
            raise OSError(0, f"it holds {found.st_size} bytes; the limit is {limit}", os.fspath(path))
        return stream.read()


def _require_file(path: str | os.PathLike, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, f"it is {kind(found.st_mode)}; give a file", os.fspath(path))


def kind(mode: int) -> str:
    """What an entry is that is no regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def reason(error: Exception) -> str:
    """Why a path cannot be used, in one line and without the path."""
    text = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return text.split("\n")[0][:120]


def printable(path: str | os.PathLike) -> str:
    """A path as one line of text: file names need not be Unicode, and may hold line breaks and control characters."""
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", _shown_sign, os.fsdecode(path))


def _shown_sign(found: re.Match[str]) -> str:
    return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= found[0] <= "\udfff" else ascii(found[0])[1:-1]


def by_suffix(files: Iterable[str]) -> dict[str, int]:
    """How many files have which suffix, the most frequent first: ``{".txt": 12, ".heic": 3}``."""
    counts = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in files)
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def listed(counts: Mapping[str, int]) -> str:
    """Counts in words: ``12 .txt, 3 .heic``."""
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.items())
