"""The split of COCO and Flickr30K that image-text retrieval is reported on, by A. Karpathy.

    {"dataset": "coco", "images": [{"filepath": "val2014", "filename": "COCO_val2014_000000522418.jpg",
      "cocoid": 522418, "imgid": 0, "split": "restval", "sentids": [...],
      "sentences": [{"raw": "A woman …", "sentid": 681330, "imgid": 0, "tokens": [...]}]}]}

Only COCO's file has ``filepath`` and ``cocoid``. Source: Karpathy and Fei-Fei, Deep Visual-Semantic Alignments
for Generating Image Descriptions, 2015, and the archive at `ORIGIN`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ashnets.data.benchmarks.faults import Broken, Faults, Place, file_name, listed, shown, text, whole
from ashnets.data.benchmarks.files import json_entries
from ashnets.data.benchmarks.records import Captioned

ORIGIN = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
SPLITS = ("train", "restval", "val", "test")


def read_karpathy(path: Path, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Captioned]]:
    """The images of some splits, in the order of the file, which is that of the published 1K folds."""
    for place, raw in json_entries(path, "images", faults):
        split = faults.attempt(place, _split, raw)
        if split is None or split not in splits:
            continue
        record = faults.attempt(place, _captioned, raw)
        if record is not None and _new(record, place, faults):
            yield split, place, record


def _split(raw: object) -> str:
    split = text(raw, "split")
    if split not in SPLITS:
        raise Broken(f"key 'split' is {shown(split)}; it must be one of {', '.join(SPLITS)}.")
    return split


def _captioned(raw: object) -> Captioned:
    filename = file_name(raw, "filename")
    in_coco = isinstance(raw, dict) and "cocoid" in raw
    sentences = [(text(item, "raw", empty=True), whole(item, "sentid")) for item in listed(raw, "sentences")]
    kept = [(caption, number) for caption, number in sentences if caption]
    if not kept:
        raise Broken("key 'sentences' contains no caption. Give it one or remove the entry.")
    return Captioned(
        id=whole(raw, "cocoid") if in_coco else whole(raw, "imgid"),
        image=f"{file_name(raw, 'filepath')}/{filename}" if in_coco else filename,
        captions=tuple(caption for caption, _ in kept),
        caption_ids=tuple(number for _, number in kept),
    )


def _new(record: Captioned, place: Place, faults: Faults) -> bool:
    new = faults.is_new("image", record.image, place)
    return all([new, *(faults.is_new("sentid", number, place) for number in record.caption_ids)])
