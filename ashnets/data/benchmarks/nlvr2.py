"""NLVR2: does a sentence hold for a pair of photographs? JSON lines.

    {"identifier": "dev-850-0-0", "sentence": "The right image shows …", "label": "False", "directory": 37, …}

The identifier is ``split-set-pair-sentence``; its images are ``split-set-pair-img0.png`` (left) and ``…-img1.png``
(right), in ``dev/``, ``test1/``, ``test2/``, and ``train/DIRECTORY/`` with the number that lines of train name.
balanced and unbalanced files are parts of dev and of test1.
Source: Suhr, Zhou et al., A Corpus for Reasoning about Natural Language Grounded in Photographs, 2019;
https://github.com/lil-lab/nlvr/tree/master/nlvr2.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.faults import Broken, Faults, Place, field, shown, text
from ashnets.data.benchmarks.files import json_lines
from ashnets.data.benchmarks.records import ImagePair, Record

_SPLITS = "train dev test1 test2 balanced_dev unbalanced_dev balanced_test1 unbalanced_test1".split()
_ORIGIN = "https://github.com/lil-lab/nlvr/tree/master/nlvr2/data"
_IDENTIFIER = re.compile(r"((train|dev|test1|test2)-\d+-[0-3])-\d+", re.ASCII)


class Nlvr2(Benchmark):
    """NLVR2."""

    name = "nlvr2"
    title = "NLVR2"
    files = tuple(AnnotationFile(f"{split}.json", (split,), _ORIGIN) for split in _SPLITS)
    folders = ("", "data", "balanced", "unbalanced", "data/balanced", "data/unbalanced")
    image_folders = ("", "images")
    image_origin = "the form named at https://github.com/lil-lab/nlvr/tree/master/nlvr2 (research use)"
    published: ClassVar = {
        "train": 86373,
        "dev": 6982,
        "test1": 6967,
        "test2": 6970,
        "balanced_dev": 2300,
        "unbalanced_dev": 4682,
        "balanced_test1": 2316,
        "unbalanced_test1": 4651,
    }
    default_split = "test1"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`."""
        for split in _SPLITS:
            if split not in splits:
                continue
            seen = faults.fresh()
            for place, raw in json_lines(self.file(f"{split}.json"), faults):
                record = faults.attempt(place, _pair, raw)
                if record is not None and seen.is_new("identifier", record.id, place):
                    yield split, place, record


def _pair(raw: object) -> ImagePair:
    identifier = text(raw, "identifier")
    match = _IDENTIFIER.fullmatch(identifier)
    if match is None:
        raise Broken(f"key 'identifier' is {shown(identifier)}; it must be split-set-pair-sentence, as dev-850-0-0.")
    label = text(raw, "label")
    if label not in ("True", "False"):
        raise Broken(f"key 'label' is {shown(label)}; it must be True or False.")
    stem, part = match.groups()
    folder = f"train/{_directory(raw)}" if part == "train" else part
    images = (f"{folder}/{stem}-img0.png", f"{folder}/{stem}-img1.png")
    return ImagePair(identifier, images, text(raw, "sentence"), label == "True")


def _directory(raw: object) -> int:
    value = field(raw, "directory")
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value), re.ASCII):
        raise Broken(f"key 'directory' is {shown(value)}; it must be the number of a folder of train.")
    return int(str(value))
