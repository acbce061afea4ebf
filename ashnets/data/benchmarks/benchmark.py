"""A benchmark on disk, in its published files: its annotation files, images and records.

    questions = open_benchmark("vqa-v2", "data/vqa")
    for record in questions.read("val"):
        image = questions.open_image(record.image)

A subclass lists its files and turns their entries into records; nothing is converted or copied.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ashnets.data.benchmarks.faults import Faults, Place
from ashnets.data.benchmarks.records import Record
from ashnets.data.folders import as_given, printable
from ashnets.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class AnnotationFile:
    """One file that splits are read from.

    Attributes:
        name: as published.
        splits: those that need it.
        origin: the download address of the file or of its archive.
    """

    name: str
    splits: tuple[str, ...]
    origin: str


class Benchmark(ABC):
    """A folder with a benchmark, or a part of it.

    Attributes:
        name: its name in `open_benchmark` and the command line.
        title: its published name.
        files: its annotation files.
        folders: subfolders to search for them; the first is the folder itself.
        image_folders: subfolders of the folder of images to search.
        image_origin: the download address of the images.
        published: the published number of records of each split, where known.
        default_split: the split on which results are usually reported and whose answers are public.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    files: ClassVar[tuple[AnnotationFile, ...]]
    folders: ClassVar[tuple[str, ...]] = ("", "annotations")
    image_folders: ClassVar[tuple[str, ...]] = ("", "images")
    image_origin: ClassVar[str]
    published: ClassVar[Mapping[str, int]] = {}
    default_split: ClassVar[str]

    def __init__(self, folder: str | os.PathLike, images: str | os.PathLike | None = None) -> None:
        """
        Args:
            folder: contains the annotation files.
            images: contains the images, if they are in another folder.

        Raises:
            DataError: one of the two is not a folder.
        """
        self.folder = Path(folder)
        self.images = Path(images) if images is not None else self.folder
        for path in (self.folder, self.images):
            if not path.is_dir():
                raise DataError(f"{printable(as_given(path))} is not a folder. Give the folder of {self.title}.")
        self._likely = ""

    @classmethod
    def all_splits(cls) -> list[str]:
        """All published splits."""
        return list(dict.fromkeys(split for file in cls.files for split in file.splits))

    @property
    def splits(self) -> list[str]:
        """The splits whose annotation files are all present."""
        absent = {split for file in self.missing_files() for split in file.splits}
        return [split for split in self.all_splits() if split not in absent]

    def missing_files(self) -> list[AnnotationFile]:
        """The missing annotation files."""
        return [file for file in self.files if self._find(file.name) is None]

    def file(self, name: str) -> Path:
        """The path of an annotation file. Raises DataError, with its origin, if it is missing."""
        found = self._find(name)
        if found is None:
            origin = next(file.origin for file in self.files if file.name == name)
            raise DataError(f"{self.folder}: {name} is missing. Download it from {origin}.")
        return found

    def _find(self, name: str) -> Path | None:
        places = (self.folder / part / name for part in self.folders)
        return next((place for place in places if place.is_file()), None)

    def read(self, split: str) -> Iterator[Record]:
        """The records of one split, in the order of its files.

        Raises:
            DataError: no such split, a file of it is missing, or a fault in a file, with line or entry.
        """
        self._require(split)
        return (record for _, _, record in self.located([split], Faults()))

    def records(self, split: str) -> list[Record]:
        """The records of one split, for training: see `read`."""
        return list(self.read(split))

    def _require(self, split: str) -> None:
        if split not in self.all_splits():
            raise DataError(f"{self.title} has no split {split!r}; there are {', '.join(self.all_splits())}.")
        for file in self.files:
            if split in file.splits:
                self.file(file.name)

    @abstractmethod
    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """The records of some splits whose files are present: each with its split and its place."""

    def find_image(self, name: str) -> Path | None:
        """The path of an image; None if it is missing or empty. Nothing is decoded."""
        if (likely := self._image_in(self._likely, name)) is not None:
            return likely
        for part in self.image_folders:
            if (found := self._image_in(part, name)) is not None:
                self._likely = part
                return found
        return None

    def _image_in(self, part: str, name: str) -> Path | None:
        path = os.path.join(self.images, part, name)
        try:
            state = os.stat(path)
        except (OSError, ValueError):
            return None
        return Path(path) if stat.S_ISREG(state.st_mode) and state.st_size else None

    def image_path(self, name: str) -> Path:
        """The path of an image. Raises DataError, with its origin, if it is missing or empty."""
        found = self.find_image(name)
        if found is None:
            places = ", ".join(str(self.images / part) for part in self.image_folders)
            raise DataError(
                f"image {name} is missing or empty under {places}. The images come from {self.image_origin}."
            )
        return found

    def open_image(self, name: str) -> Image.Image:
        """An image, decoded, in RGB. Raises DataError if it is missing, InputError if it is damaged."""
        from ashnets.data.images import load_image

        return load_image(self.image_path(name))
