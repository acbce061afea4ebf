"""A folder of images: find all images below it, and read one image as model input or report why it is unreadable."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ashnets.data.folders import as_given, by_suffix, is_url, listed, printable, read_file, reason, walk
from ashnets.data.images import MAX_BYTES, is_image, load_image
from ashnets.errors import DataError, InputError
from ashnets.processor import AshNetsProcessor


class Stamp(NamedTuple):
    """Size in bytes and modification time in ns: if equal, a file counts as unchanged."""

    size: int
    changed: int


@dataclass(frozen=True)
class Found:
    """The contents of a folder of images; all paths are relative to it.

    Attributes:
        images: path → stamp, in alphabetic order.
        faults: path → why, of folders that cannot be listed and of entries with an image's name that are not files.
        closed: which of the faults hide images that may still be there.
        passed_over: suffix → number, of the other files.
    """

    images: dict[str, Stamp]
    faults: dict[str, str]
    closed: frozenset[str]
    passed_over: dict[str, int]

    def hides(self, path: str) -> bool:
        """Whether it is unknown if an image still exists, because it or a folder above it cannot be read."""
        return any(path == one or path.startswith(f"{one}/") for one in self.closed)


def refuse_url(images: str | os.PathLike) -> None:
    """Raise DataError if ``images`` is a URL."""
    if is_url(images):
        raise DataError(f"{printable(as_given(images))} is a URL: download the images and give their folder")


def scan(root: str | os.PathLike) -> Found:
    """Every image below a folder, by its suffix.

    Hidden files and folders (``.name``) are left out, links to folders are not followed.

    Raises:
        DataError: no such folder, or no image in it.
    """
    base = os.fspath(root)
    refuse_url(base)
    if not os.path.isdir(base):
        raise DataError(f"{printable(base)} is not a folder: give one with images in it")
    folder = walk(base)
    faults, closed, images = folder.faults(is_image), set(folder.closed), {}
    for path in filter(is_image, folder.files):
        try:
            stat = folder.files[path].stat()
        except FileNotFoundError:  # gone since it was listed
            continue
        except OSError as error:  # a folder may be listed and yet not be entered
            faults[path] = f"{printable(os.path.join(base, path))} cannot be read ({reason(error)})"
            closed.add(path)
            continue
        images[path] = Stamp(stat.st_size, stat.st_mtime_ns)
    passed_over = by_suffix(path for path in folder.files if not is_image(path))
    if not images and not faults:
        others = f" (there are {listed(passed_over)})" if passed_over else ""
        raise DataError(
            f"{printable(base)} contains no images (.png, .jpg, ...), and neither do its subfolders{others}"
        )
    if not images:
        raise DataError(f"none of the images of {printable(base)} can be read: {next(iter(faults.values()))}")
    return Found(images, faults, frozenset(closed), passed_over)


@dataclass(frozen=True)
class Read:
    """One image after reading: pixels (1, 3, S, S) with the key of its random spikes, a known vector, or a fault."""

    sha256: str = ""
    pixels: torch.Tensor | None = None
    key: int = 0
    known: np.ndarray | None = None
    fault: str = ""


def read_image(path: str | os.PathLike, processor: AshNetsProcessor, known: Mapping[str, np.ndarray]) -> Read:
    """Read and decode an image; if ``known`` contains its SHA-256, that value is returned instead of pixels."""
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
    return Read(sha256, batch["pixel_values"], int(batch["image_keys"][0]))
