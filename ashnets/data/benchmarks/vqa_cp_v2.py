"""VQA-CP v2: VQA v2 split anew, so that the answers' distribution for a kind of question changes from train to test.

    vqacp_v2_train_questions.json      [{"question_id": 9, "image_id": 27511, "question": …, "coco_split": "train2014"}]
    vqacp_v2_train_annotations.json    [{"question_id": 9, "answers": […], "coco_split": "train2014", …}]

The entries are those of VQA v2 with ``coco_split``, since both splits take from train2014 and val2014. The published
files are bare lists; objects with the list under ``questions`` / ``annotations``, and objects keyed by question id,
are read too, because copies of both forms are about.
Source: Agrawal et al., Don't Just Assume; Look and Answer, 2018; https://computing.ece.vt.edu/~aish/vqacp/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.coco_captions import COCO_IMAGE_FOLDERS, COCO_IMAGES
from ashnets.data.benchmarks.faults import Faults, Place
from ashnets.data.benchmarks.files import json_entries
from ashnets.data.benchmarks.records import Record
from ashnets.data.benchmarks.vqa_v2 import join

_HOME = "https://computing.ece.vt.edu/~aish/vqacp"
_SPLITS = ("train", "test")
_ROLES = ("questions", "annotations")


class VqaCpV2(Benchmark):
    """VQA under changing priors, version 2."""

    name = "vqa-cp-v2"
    title = "VQA-CP v2"
    files = tuple(
        AnnotationFile(f"vqacp_v2_{split}_{role}.json", (split,), f"{_HOME}/vqacp_v2_{split}_{role}.json")
        for split in _SPLITS
        for role in _ROLES
    )
    folders = ("", "annotations", "questions")
    image_folders = COCO_IMAGE_FOLDERS
    image_origin = COCO_IMAGES
    published: ClassVar = {"train": 438183, "test": 219928}
    default_split = "test"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`. A question in both splits is a fault."""
        for split in _SPLITS:
            if split in splits:
                questions, annotations = (
                    json_entries(self.file(f"vqacp_v2_{split}_{role}.json"), role, faults) for role in _ROLES
                )
                for place, record in join(questions, annotations, faults):
                    yield split, place, record
