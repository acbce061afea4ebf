"""easy-VQA: generated images of one shape, 64 × 64, and simple questions with 13 answers.

    data/train/questions.json    [["what color is the shape?", "blue", 0], …]     question, answer, image
    data/train/images/0.png

The folder is that of the package ``easy-vqa`` 1.0 on PyPI (``site-packages/easy_vqa``), or its ``data``. A question's
id is the number of its entry, from 0; it has one right answer, and questions that are answered yes or no have the
type ``yes/no``, all others ``other``. Source: V. Zhou, https://github.com/vzhou842/easy-VQA, MIT.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.faults import Broken, Faults, Place, shown, text
from ashnets.data.benchmarks.files import json_entries
from ashnets.data.benchmarks.records import Question, Record

_SPLITS = ("train", "test")
_ORIGIN = "pip install easy-vqa==1.0"


class EasyVqa(Benchmark):
    """easy-VQA 1.0."""

    name = "easy-vqa"
    title = "easy-VQA"
    files = tuple(AnnotationFile(f"{split}/questions.json", (split,), _ORIGIN) for split in _SPLITS)
    folders = ("", "data", "easy_vqa/data")
    image_folders = folders
    image_origin = _ORIGIN
    published: ClassVar = {"train": 38575, "test": 9673}
    default_split = "test"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`."""
        for split in _SPLITS:
            if split in splits:
                for place, raw in json_entries(self.file(f"{split}/questions.json"), "questions", faults):
                    record = faults.attempt(place, _question, place.number, split, raw)
                    if record is not None:
                        yield split, place, record


def _question(number: int, split: str, raw: object) -> Question:
    if not isinstance(raw, list) or len(raw) != 3:
        raise Broken(f"it is {shown(raw)}; it must be a list of question, answer and number of the image.")
    image_id = raw[2]
    if not isinstance(image_id, int) or isinstance(image_id, bool) or image_id < 0:
        raise Broken(f"its image is {shown(image_id)}; it must be a number from 0.")
    said = {"question": raw[0], "answer": raw[1]}
    answer = text(said, "answer")
    kind = "yes/no" if answer in ("yes", "no") else "other"
    image = f"{split}/images/{image_id}.png"
    return Question(number, image, text(said, "question"), (answer,), answer, kind)
