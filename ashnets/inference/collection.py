"""A person's pictures: every picture below a folder, and a picture as the model takes it, or why it cannot be read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ashnets.data.images import load_image
from ashnets.data.source_folder import is_picture
from ashnets.errors import DataError, InputError


class Stamp(NamedTuple):
    """What says, without reading it, that a file is still the same: size in bytes, time of change in ns."""

    size: int
    changed: int


def scan(root: str | os.PathLike) -> dict[str, Stamp]:
    """Every picture below a folder by its name's ending, path within the folder → stamp, in alphabetic order.

    Hidden files and folders (``.name``) are left out, links to folders are not followed.

    Raises:
        DataError: no such folder, or no picture in it.
    """
    base = os.fspath(root)
    if not os.path.isdir(base):
        raise DataError(f"{base} is no folder: give one with pictures in it")
    found = {}
    for folder, below, names in os.walk(base):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or not is_picture(name):
                continue
            path = os.path.join(folder, name)
            try:
                stat = os.stat(path)
            except OSError:  # gone since it was listed, or a link to nowhere
                continue
            found[os.path.relpath(path, base).replace(os.sep, "/")] = Stamp(stat.st_size, stat.st_mtime_ns)
    if not found:
        raise DataError(f"{base} holds no picture, neither do its sub-folders: their names end in .png, .jpg, ...")
    return dict(sorted(found.items()))


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
        data = Path(path).read_bytes()
    except OSError as error:
        return Read(fault=f"{printable(path)} cannot be read ({error.strerror})")
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


def printable(path: str | os.PathLike) -> str:
    """A path as text that every terminal takes: file names need not be Unicode."""
    return os.fsencode(path).decode(errors="replace")
