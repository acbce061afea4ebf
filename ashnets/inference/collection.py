"""A person's pictures: every picture below a folder, and a picture as the model takes it, or why it cannot be read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ashnets.data.folders import by_suffix, listed, printable, read_file, reason, walk
from ashnets.data.images import MAX_BYTES, is_picture, load_image
from ashnets.errors import DataError, InputError


class Stamp(NamedTuple):
    """What says, without reading it, that a file is still the same: size in bytes, time of change in ns."""

    size: int
    changed: int


@dataclass(frozen=True)
class Found:
    """What lies below a folder of pictures; all paths are relative to it.

    Attributes:
        pictures: path → stamp, in alphabetic order.
        faults: path → why, of folders that cannot be listed and of what is no file though its name is a picture's.
        closed: which of the faults hide pictures that may still be there.
        passed_over: suffix → number, of the other files.
    """

    pictures: dict[str, Stamp]
    faults: dict[str, str]
    closed: frozenset[str]
    passed_over: dict[str, int]

    def hides(self, path: str) -> bool:
        """Whether nobody can say if a picture is still there: it, or a folder above it, cannot be read."""
        return any(path == one or path.startswith(f"{one}/") for one in self.closed)


def scan(root: str | os.PathLike) -> Found:
    """Every picture below a folder by its name's ending.

    Hidden files and folders (``.name``) are left out, links to folders are not followed.

    Raises:
        DataError: no such folder, or no picture in it.
    """
    base = os.fspath(root)
    if not os.path.isdir(base):
        raise DataError(f"{printable(base)} is no folder: give one with pictures in it")
    folder = walk(base)
    faults, closed, pictures = folder.faults(is_picture), set(folder.closed), {}
    for path in filter(is_picture, folder.files):
        try:
            stat = folder.files[path].stat()
        except FileNotFoundError:  # gone since it was listed
            continue
        except OSError as error:  # a folder may be listed and yet not be entered
            faults[path] = f"{printable(os.path.join(base, path))} cannot be read ({reason(error)})"
            closed.add(path)
            continue
        pictures[path] = Stamp(stat.st_size, stat.st_mtime_ns)
    passed_over = by_suffix(path for path in folder.files if not is_picture(path))
    if not pictures and not faults:
        others = f" (there are {listed(passed_over)})" if passed_over else ""
        raise DataError(
            f"{printable(base)} holds no picture, neither do its sub-folders: "
            f"their names end in .png, .jpg, ...{others}"
        )
    if not pictures:
        raise DataError(f"none of the pictures of {printable(base)} can be read: {next(iter(faults.values()))}")
    return Found(pictures, faults, frozenset(closed), passed_over)


@dataclass(frozen=True)
class Read:
    """One picture after reading: pixels (1, 3, S, S) with the key of its spikes, a vector known before, or a fault."""

    sha256: str = ""
    pixels: torch.Tensor | None = None
    key: int = 0
    known: Any = None
    fault: str = ""


def read_picture(path: str | os.PathLike, processor: Any, known: Mapping[str, Any]) -> Read:
    """Read and decode a picture; what stands in ``known`` under its SHA-256 is taken instead of its pixels."""
    try:
        data = read_file(path, MAX_BYTES)
    except OSError as error:
        return Read(fault=f"{printable(path)} cannot be read ({reason(error)})")
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 in known:
        return Read(sha256, known=known[sha256])
    stream = io.BytesIO(data)
    stream.name = printable(path)  # for the message of an error
    try:
        if not data:
            raise InputError(f"{printable(path)} is empty (0 bytes).")
        batch = processor.image_processor(load_image(stream))
    except InputError as error:
        return Read(sha256, fault=str(error))
    return Read(sha256, batch["pixel_values"], int(batch["image_ids"][0]))
