"""COCO captions: Karpathy's split (train, restval, val, test), and the official files (train2014, val2014).

    {"images": [{"id": 391895, "file_name": "COCO_val2014_000000391895.jpg", …}],
     "annotations": [{"id": 770337, "image_id": 391895, "caption": "A man …"}]}

Source: Chen et al., Microsoft COCO Captions, 2015; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.faults import BROKEN, Faults, Place, file_name, text, whole
from ashnets.data.benchmarks.files import json_document, json_entries
from ashnets.data.benchmarks.karpathy import ORIGIN, SPLITS, read_karpathy
from ashnets.data.benchmarks.records import Captioned, Record

COCO_IMAGES = "http://images.cocodataset.org/zips/train2014.zip, val2014.zip and test2015.zip"
COCO_IMAGE_FOLDERS = ("", "images", "coco", "coco/images")
_OFFICIAL = ("train2014", "val2014")
_FLICKR = re.compile(r"flickr\.com/\d+/(\d+)_")  # http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg
_ANNOTATIONS = "http://images.cocodataset.org/annotations/annotations_trainval2014.zip"


def coco_image(part: str, image_id: int) -> str:
    """``train2014``, 9 → ``train2014/COCO_train2014_000000000009.jpg``."""
    return f"{part}/COCO_{part}_{image_id:012d}.jpg"


class CocoCaptions(Benchmark):
    """COCO captions of 2014."""

    name = "coco-captions"
    title = "COCO captions"
    files = (
        AnnotationFile("dataset_coco.json", SPLITS, ORIGIN),
        *(AnnotationFile(f"captions_{split}.json", (split,), _ANNOTATIONS) for split in _OFFICIAL),
    )
    folders = ("", "annotations", "karpathy")
    image_folders = COCO_IMAGE_FOLDERS
    image_origin = COCO_IMAGES
    published: ClassVar = {
        "train": 82783,
        "restval": 30504,
        "val": 5000,
        "test": 5000,
        "train2014": 82783,
        "val2014": 40504,
    }
    default_split = "test"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`."""
        if set(splits) & set(SPLITS):
            yield from read_karpathy(self.file("dataset_coco.json"), splits, faults)
        for split in _OFFICIAL:
            if split in splits:
                # The official files hold the same images again: their ids are new for each file.
                apart = faults.fresh()
                for place, record in _read_official(self.file(f"captions_{split}.json"), split, apart):
                    yield split, place, record

    def flickr_ids(self, faults: Faults) -> dict[int, int]:
        """COCO id → Flickr id, from the addresses in those of the official files that are present."""
        found = {}
        for split in _OFFICIAL:
            if (path := self._find(f"captions_{split}.json")) is not None:
                for place, raw in json_entries(path, "images", faults):
                    number = faults.attempt(place, whole, raw, "id")
                    address = raw.get("flickr_url", "") if isinstance(raw, dict) else ""
                    if number is not None and (match := _FLICKR.search(str(address))):
                        found[number] = int(match[1])
        return found


def _read_official(path: Path, split: str, faults: Faults) -> Iterator[tuple[Place, Captioned]]:
    document = json_document(path, faults)
    if document is None:
        return
    images: dict[int, tuple[Place, str]] = {}
    for place, raw in json_entries(path, "images", faults, document):
        found = faults.attempt(place, _image, raw)
        if found is not None and faults.is_new("image id", found[0], place):
            images[found[0]] = (place, f"{split}/{found[1]}")
    captions: dict[int, list[tuple[int, str]]] = {number: [] for number in images}
    for place, raw in json_entries(path, "annotations", faults, document):
        read = faults.attempt(place, _caption, raw)
        if read is None or not faults.is_new("annotation id", read[0], place):
            continue
        number, image_id, caption = read
        if image_id not in captions:
            faults.report(BROKEN, place, f"image_id {image_id} is not among the images. Remove the entry.")
        elif caption:
            captions[image_id].append((number, caption))
    for image_id, (place, image) in images.items():
        said = captions[image_id]
        if not said:
            faults.report(BROKEN, place, f"image {image_id} has no caption. Give it one or remove it.")
            continue
        yield place, Captioned(image_id, image, tuple(c for _, c in said), tuple(n for n, _ in said))


def _image(raw: object) -> tuple[int, str]:
    return whole(raw, "id"), file_name(raw, "file_name")


def _caption(raw: object) -> tuple[int, int, str]:
    return whole(raw, "id"), whole(raw, "image_id"), text(raw, "caption", empty=True)
