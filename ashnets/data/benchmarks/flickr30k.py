"""Flickr30K: Karpathy's split (train, val, test), and ``results.csv`` with five captions an image (all).

    image_name| comment_number| comment
    1000092795.jpg| 0| Two young guys with shaggy hair look at their hands while hanging out in the yard .

``results.csv`` separates by `` | ``-like bars and quotes nothing. One of its published lines lacks the second bar
(``2199200615.jpg| 4   A dog runs across the grass .``); such a line is read as what it means.
Source: Young et al., From Image Descriptions to Visual Denotations, 2014; the copy with ``results.csv`` is Kaggle's
hsankesara/flickr-image-dataset.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.faults import BROKEN, Broken, Faults, Place, file_name, shown
from ashnets.data.benchmarks.files import text_lines
from ashnets.data.benchmarks.karpathy import ORIGIN, read_karpathy
from ashnets.data.benchmarks.records import Captioned, Record

FLICKR_IMAGES = "https://shannon.cs.illinois.edu/DenotationGraph/ (a form, answered by e-mail)"
FLICKR_IMAGE_FOLDERS = (
    "",
    "flickr30k_images",
    "flickr30k-images",
    "images",
    "flickr30k_images/flickr30k_images",
)
_SPLITS = ("train", "val", "test")
_HEADER = ["image_name", "comment_number", "comment"]
_WITHOUT_BAR = re.compile(r"(\d+)\s+(\S.*)")


class Flickr30K(Benchmark):
    """Flickr30K."""

    name = "flickr30k"
    title = "Flickr30K"
    files = (
        AnnotationFile("dataset_flickr30k.json", _SPLITS, ORIGIN),
        AnnotationFile("results.csv", ("all",), "https://www.kaggle.com/datasets/hsankesara/flickr-image-dataset"),
    )
    folders = ("", "annotations", "karpathy", "flickr30k_images")
    image_folders = FLICKR_IMAGE_FOLDERS
    image_origin = FLICKR_IMAGES
    published: ClassVar = {"train": 29000, "val": 1014, "test": 1000, "all": 31783}
    default_split = "test"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`."""
        if set(splits) & set(_SPLITS):
            yield from read_karpathy(self.file("dataset_flickr30k.json"), splits, faults)
        if "all" in splits:
            for place, record in _read_csv(self.file("results.csv"), faults.fresh()):
                yield "all", place, record


def _read_csv(path: Path, faults: Faults) -> Iterator[tuple[Place, Captioned]]:
    lines = text_lines(path, faults)
    if lines and [part.strip() for part in lines[0].split("|")] != _HEADER:
        faults.report(BROKEN, Place(path, "line", 1), f"it is {shown(lines[0])}; it must be {'| '.join(_HEADER)}.")
        return
    said: dict[str, list[tuple[int, str]]] = {}
    first: dict[str, Place] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        place = Place(path, "line", number)
        row = faults.attempt(place, _row, line)
        if row is not None and faults.is_new("comment", row[:2], place):
            first.setdefault(row[0], place)
            said.setdefault(row[0], []).append(row[1:])
    for image, rows in said.items():
        kept = [(number, caption) for number, caption in sorted(rows) if caption]
        if not kept:
            faults.report(BROKEN, first[image], f"image {image} has no caption. Give it one or remove it.")
            continue
        captions, numbers = tuple(caption for _, caption in kept), tuple(number for number, _ in kept)
        yield first[image], Captioned(image, image, captions, numbers)


def _row(line: str) -> tuple[str, int, str]:
    parts = [part.strip() for part in line.split("|", 2)]
    if len(parts) == 2 and (match := _WITHOUT_BAR.fullmatch(parts[1])):
        parts = [parts[0], *match.groups()]
    if len(parts) != 3 or not parts[1].isdecimal() or len(parts[1]) > 9:
        raise Broken(f"it is {shown(line)}; it must be a file name, a number and a caption, separated by bars.")
    return file_name({"image_name": parts[0]}, "image_name"), int(parts[1]), parts[2]
