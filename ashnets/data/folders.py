"""List the files below a folder, and open files safely: folders can contain pipes, devices and broken links."""

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
        root: the paths are relative to it.
        files: path → entry, of regular files and links to them, in alphabetical order.
        closed: path → why, of folders that cannot be listed and entries that cannot be inspected; they may be
            unchanged.
        odd: path → why, of entries that are neither file nor folder: named pipes, sockets, devices, broken links.
    """

    root: str
    files: dict[str, os.DirEntry[str]] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)

    def faults(self, wanted: Callable[[str], bool]) -> dict[str, str]:
        """Path → a sentence with its fault, of all closed entries and of the odd entries whose path is ``wanted``."""
        found = {**self.closed, **{path: why for path, why in self.odd.items() if wanted(path)}}
        return {path: f"{printable(os.path.join(self.root, path))} {found[path]}" for path in sorted(found)}


def walk(root: str | os.PathLike) -> Folder:
    """List a folder with its subfolders. Raises DataError where ``root`` itself cannot be listed."""
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
                            found.odd[path] = f"is {kind(entry.stat().st_mode)}, not a file"
                    except FileNotFoundError:
                        if entry.is_symlink():  # else it has gone since it was listed
                            found.odd[path] = "is a broken link"
                    except OSError as error:
                        found.closed[path] = f"cannot be read ({reason(error)})"
        except OSError as error:
            if not part:
                raise DataError(f"{printable(root)} cannot be read ({reason(error)})") from None
            found.closed[part[:-1]] = f"cannot be read ({reason(error)})"
    found.files.update(sorted(files.items()))
    return found


def read_file(path: str | os.PathLike, limit: int | None = None) -> bytes:
    """The bytes of a regular file. A named pipe, which could block a process forever, is never opened.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than ``limit`` bytes; ``strerror`` says which.
    """
    _require_file(path, os.stat(path))  # before it is opened: opening a device can have side effects
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        _require_file(path, found)  # again: it may have been replaced
        if limit is not None and found.st_size > limit:
            raise OSError(0, f"it contains {found.st_size} bytes; the limit is {limit}", os.fspath(path))
        return stream.read()


def _require_file(path: str | os.PathLike, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, f"it is {kind(found.st_mode)}; give a file", os.fspath(path))


def kind(mode: int) -> str:
    """The kind of an entry that is not a regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def reason(error: Exception) -> str:
    """The reason of an error in one line, without the path."""
    text = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return text.split("\n")[0][:120]


def printable(path: str | os.PathLike) -> str:
    """A path as one line of text: control characters and invalid Unicode are escaped."""
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", _shown_sign, os.fsdecode(path))


def as_given(path: str | os.PathLike) -> str:
    """A path as text; of ``https://…`` with both slashes, of which ``pathlib`` keeps one."""
    return re.sub(r"^([A-Za-z][\w+.-]+):/(?=[^/])", r"\1://", os.fsdecode(path))


def is_url(path: str | os.PathLike) -> bool:
    """Whether a path is a URL and no file or folder of this machine."""
    return "://" in as_given(path) and not os.path.exists(path)


def _shown_sign(found: re.Match[str]) -> str:
    return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= found[0] <= "\udfff" else ascii(found[0])[1:-1]


def by_suffix(files: Iterable[str]) -> dict[str, int]:
    """Number of files for each suffix, most frequent first: ``{".txt": 12, ".heic": 3}``."""
    counts = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in files)
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def listed(counts: Mapping[str, int]) -> str:
    """Counts as text: ``12 .txt, 3 .heic``."""
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.items())
