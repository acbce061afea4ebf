"""SNLI-VE: does a photograph of Flickr30K entail a sentence, contradict it, or neither? JSON lines.

    {"Flickr30K_ID": "4705552913", "captionID": "4705552913.jpg#2", "pairID": "4705552913.jpg#2r1n",
     "gold_label": "neutral", "sentence1": "Two women are …", "sentence2": "The women are …", …}

Older files of the makers spell the first key ``Flikr30kID``. ``sentence1`` is the caption of SNLI that the image
replaces. Source: Xie et al., Visual Entailment, 2019; https://github.com/necla-ml/SNLI-VE.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.faults import Broken, Faults, Place, file_name, shown, text
from ashnets.data.benchmarks.files import json_lines
from ashnets.data.benchmarks.flickr30k import FLICKR_IMAGE_FOLDERS, FLICKR_IMAGES
from ashnets.data.benchmarks.records import Entailment, Record

LABELS = ("entailment", "neutral", "contradiction")
_SPLITS = ("train", "dev", "test")
_KEYS = ("Flickr30K_ID", "Flikr30kID", "Flickr30kID")


class SnliVe(Benchmark):
    """SNLI-VE."""

    name = "snli-ve"
    title = "SNLI-VE"
    files = tuple(
        AnnotationFile(f"snli_ve_{split}.jsonl", (split,), "https://github.com/necla-ml/SNLI-VE") for split in _SPLITS
    )
    folders = ("", "data", "annotations")
    image_folders = FLICKR_IMAGE_FOLDERS
    image_origin = FLICKR_IMAGES
    published: ClassVar = {"train": 529527, "dev": 17858, "test": 17901}
    default_split = "test"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`."""
        for split in _SPLITS:
            if split in splits:
                for place, raw in json_lines(self.file(f"snli_ve_{split}.jsonl"), faults):
                    record = faults.attempt(place, _entailment, raw)
                    if record is not None and faults.is_new("pairID", record.id, place):
                        yield split, place, record


def _entailment(raw: object) -> Entailment:
    label = text(raw, "gold_label")
    if label not in LABELS:
        raise Broken(f"key 'gold_label' is {shown(label)}; it must be one of {', '.join(LABELS)}.")
    assert isinstance(raw, dict)  # `text` refuses anything else
    key = next((key for key in _KEYS if key in raw), _KEYS[0])
    named = {key: str(raw[key])} if isinstance(raw.get(key), int) else raw
    image = file_name(named, key).removesuffix(".jpg") + ".jpg"
    premise = text(raw, "sentence1", empty=True) if "sentence1" in raw else ""
    return Entailment(text(raw, "pairID"), image, text(raw, "sentence2"), label, premise)
