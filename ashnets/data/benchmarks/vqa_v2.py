"""VQA v2: questions about COCO's images, ten answers each.

    v2_OpenEnded_mscoco_train2014_questions.json
      {"questions": [{"question_id": 458752000, "image_id": 458752, "question": "What is this photo taken looking
       through?"}], "data_subtype": "train2014", …}
    v2_mscoco_train2014_annotations.json
      {"annotations": [{"question_id": 458752000, "image_id": 458752, "question_type": "what is this",
       "answer_type": "other", "multiple_choice_answer": "net",
       "answers": [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}, …]}], …}

The answers of test and test-dev are not published: those splits have questions alone.
Source: Goyal et al., Making the V in VQA Matter, 2017; https://visualqa.org/download.html.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import ClassVar

from ashnets.data.benchmarks.benchmark import AnnotationFile, Benchmark
from ashnets.data.benchmarks.coco_captions import COCO_IMAGE_FOLDERS, COCO_IMAGES, coco_image
from ashnets.data.benchmarks.faults import BROKEN, Broken, Faults, Place, field, listed, text, whole
from ashnets.data.benchmarks.files import json_entries
from ashnets.data.benchmarks.records import Question, Record

_SUBTYPES = {"train": "train2014", "val": "val2014", "test-dev": "test-dev2015", "test": "test2015"}
_ANSWERED = ("train", "val")
_HOME = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
Entries = Iterable[tuple[Place, object]]


def _questions(split: str) -> str:
    return f"v2_OpenEnded_mscoco_{_SUBTYPES[split]}_questions.json"


def _annotations(split: str) -> str:
    return f"v2_mscoco_{_SUBTYPES[split]}_annotations.json"


def _archive(kind: str, split: str) -> str:
    return f"{_HOME}/v2_{kind}_{split.removesuffix('-dev').capitalize()}_mscoco.zip"


class VqaV2(Benchmark):
    """VQA v2, open-ended, real images."""

    name = "vqa-v2"
    title = "VQA v2"
    files = (
        *(AnnotationFile(_questions(split), (split,), _archive("Questions", split)) for split in _SUBTYPES),
        *(AnnotationFile(_annotations(split), (split,), _archive("Annotations", split)) for split in _ANSWERED),
    )
    folders = ("", "annotations", "questions", "Questions", "Annotations")
    image_folders = COCO_IMAGE_FOLDERS
    image_origin = COCO_IMAGES
    published: ClassVar = {"train": 443757, "val": 214354, "test-dev": 107394, "test": 447793}
    default_split = "val"

    def located(self, splits: Collection[str], faults: Faults) -> Iterator[tuple[str, Place, Record]]:
        """See `Benchmark.located`."""
        for split in _SUBTYPES:
            if split not in splits:
                continue
            part = _SUBTYPES[split].replace("-dev", "")
            questions = json_entries(self.file(_questions(split)), "questions", faults)
            if split in _ANSWERED:
                annotations: Entries | None = json_entries(self.file(_annotations(split)), "annotations", faults)
            else:
                annotations = None
            # test-dev is a part of test: both have the same ids.
            for place, record in join(questions, annotations, faults.fresh(), part):
                yield split, place, record


def join(
    questions: Entries, annotations: Entries | None, faults: Faults, part: str | None = None
) -> Iterator[tuple[Place, Question]]:
    """Questions with their answers, in the order of the questions.

    Args:
        part: COCO's part that the images are from; None where each entry names it in ``coco_split``.
    """
    answered: dict[int, tuple[Place, int, Question]] = {}
    for place, raw in annotations or ():
        found = faults.attempt(place, _answered, raw)
        if found is not None and faults.is_new("question_id of an annotation", found[1].id, place):
            answered[found[1].id] = (place, *found)
    for place, raw in questions:
        read = faults.attempt(place, _question, raw, part)
        if read is None or not faults.is_new("question_id", read[1].id, place):
            continue
        image_id, record = read
        if annotations is None:
            yield place, record
            continue
        if record.id not in answered:
            faults.report(BROKEN, place, f"question_id {record.id} has no annotation. Remove the question.")
            continue
        _, answered_image, answer = answered.pop(record.id)
        if answered_image != image_id:
            message = f"question_id {record.id} is about image {image_id}, its annotation about {answered_image}."
            faults.report(BROKEN, place, message)
            continue
        yield place, replace(answer, image=record.image, question=record.question)
    for place, _, answer in answered.values():
        faults.report(BROKEN, place, f"question_id {answer.id} is not among the questions. Remove the annotation.")


def _question(raw: object, part: str | None) -> tuple[int, Question]:
    image_id = whole(raw, "image_id")
    image = coco_image(part or _coco_split(raw), image_id)
    return image_id, Question(whole(raw, "question_id"), image, text(raw, "question"))


def _coco_split(raw: object) -> str:
    part = text(raw, "coco_split")
    if part not in ("train2014", "val2014"):
        raise Broken(f"key 'coco_split' is {part!r}; it must be train2014 or val2014.")
    return part


def _answered(raw: object) -> tuple[int, Question]:
    answers = listed(raw, "answers")
    if not answers:
        raise Broken("key 'answers' is empty; there must be one of each annotator.")
    # As they stand, spaces and all: the official evaluation tells apart what it has not yet cleaned.
    given = tuple(_answer(item) for item in answers)
    return whole(raw, "image_id"), Question(
        id=whole(raw, "question_id"),
        image="",
        question="",
        answers=given,
        answer=text(raw, "multiple_choice_answer", empty=True),
        answer_type=text(raw, "answer_type"),
        question_type=text(raw, "question_type"),
    )


def _answer(item: object) -> str:
    text(item, "answer", empty=True)
    return str(field(item, "answer"))
