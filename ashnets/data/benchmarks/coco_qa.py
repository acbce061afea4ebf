"""COCO-QA: questions made from COCO's captions, answers of one word, in four text files that run in parallel.

    train/questions.txt    what is the color of the bus
    train/answers.txt      red
    train/types.txt        2          0 object, 1 number, 2 color, 3 location
    train/img_ids.txt      393224     of COCO's train2014 for train, val2014 for test

A question's id is the number of its line, from 1. There is no type "other", although some tables of results name one.
Source: Ren, Kiros and Zemel, Exploring Models and Data for Image Question Answering, 2015;
https://www.cs.toronto.edu/~mren/research/imageqa/data/cocoqa/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.coco_captions import COCO_IMAGE_FOLDERS, COCO_IMAGES, coco_image
from ashnets.data.benchmarks.faults import BROKEN, Broken, Faults, Place, shown, text
from ashnets.data.benchmarks.files import text_lines
from ashnets.data.benchmarks.records import Question, Record

TYPES = ("object", "number", "color", "location")
_PARTS = {"train": "train2014", "test": "val2014"}
_COLUMNS = ("questions", "answers", "types", "img_ids")
_ORIGIN = "https://www.cs.toronto.edu/~mren/research/imageqa/data/cocoqa/cocoqa-2015-05-17.zip"


class CocoQa(Benchmark):
    """COCO-QA of 17 May 2015."""

    name = "coco-qa"
    title = "COCO-QA"
    files = tuple(AnnotationFile(f"{split}/{column}.txt", (split,), _ORIGIN) for split in _PARTS for column in _COLUMNS)
    folders = ("", "cocoqa", "cocoqa-2015-05-17")
    image_folders = COCO_IMAGE_FOLDERS
    image_origin = COCO_IMAGES
    published: ClassVar = {"train": 78736, "test": 38948}
    default_split = "test"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`. Files of unequal length are one fault: which line is missing nobody knows."""
        for split, part in _PARTS.items():
            if split not in splits:
                continue
            paths = [self.file(f"{split}/{column}.txt") for column in _COLUMNS]
            columns = [text_lines(path, faults) for path in paths]
            if len({len(column) for column in columns}) > 1:
                lengths = ", ".join(f"{path.name} {len(c)}" for path, c in zip(paths, columns, strict=True))
                message = f"the four files must have equally many lines, but have: {lengths}. Unpack them again."
                faults.report(BROKEN, Place(paths[0].parent), message)
                continue
            for number, row in enumerate(zip(*columns, strict=True), start=1):
                place = Place(paths[0], "line", number)
                record = faults.attempt(place, _question, number, part, row)
                if record is not None:
                    yield split, place, record


def _question(number: int, part: str, row: tuple[str, ...]) -> Question:
    raw = dict(zip(_COLUMNS, row, strict=True))
    kind, image_id = raw["types"].strip(), raw["img_ids"].strip()
    if kind not in ("0", "1", "2", "3"):
        raise Broken(f"its type (types.txt) is {shown(kind)}; it must be 0 (object), 1 (number), 2 or 3.")
    if not (image_id.isascii() and image_id.isdecimal() and len(image_id) <= 12):
        raise Broken(f"its image (img_ids.txt) is {shown(image_id)}; it must be a number of COCO.")
    answer = text(raw, "answers")
    image = coco_image(part, int(image_id))
    return Question(number, image, text(raw, "questions"), (answer,), answer, TYPES[int(kind)])
