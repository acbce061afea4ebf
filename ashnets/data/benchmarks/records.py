"""What every benchmark is read into: four kinds of record, each naming its images and opening none of them.

An image's name is a path as its makers publish it (``train2014/COCO_train2014_000000000009.jpg``); where it lies on
disk is the benchmark's matter (`Benchmark.image_path`), and only when somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[int, int, int, int]  # left, top, width, height, in pixels


@dataclass(frozen=True, slots=True)
class Captioned:
    """An image and what is said about it.

    Attributes:
        id: the image's id as published.
        image: its file.
        captions: at least one; empty ones are left out.
        caption_ids: one for each caption.
        boxes: one for each caption where it speaks of a region, else none.
    """

    id: int | str
    image: str
    captions: tuple[str, ...]
    caption_ids: tuple[int, ...]
    boxes: tuple[Box, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """The files that the record needs."""
        return (self.image,)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image.

    Attributes:
        id: as published; the number of the line or entry where the data gives none.
        image: its file.
        question: as published.
        answers: of every annotator, in order; none where the answers are kept secret.
        answer: the one that counts as right, or the most frequent; None where it is kept secret.
        answer_type: ``yes/no``, ``number``, ``other`` for VQA; ``object``, ``number``, ``color``, ``location`` for
            COCO-QA; else empty.
        question_type: its first words, for VQA; else empty.
    """

    id: int
    image: str
    question: str
    answers: tuple[str, ...] = ()
    answer: str | None = None
    answer_type: str = ""
    question_type: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """The files that the record needs."""
        return (self.image,)


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A sentence that holds for two images, or does not.

    Attributes:
        id: ``split-set-pair-sentence``.
        images: the files of the left and the right one.
        sentence: as published.
        label: whether it holds.
    """

    id: str
    images: tuple[str, str]
    sentence: str
    label: bool


@dataclass(frozen=True, slots=True)
class Entailment:
    """An image as premise, a sentence as hypothesis.

    Attributes:
        id: ``pairID``.
        image: its file.
        hypothesis: ``sentence2``.
        label: ``entailment``, ``neutral`` or ``contradiction``.
        premise: ``sentence1``, the caption that the image stands for; a model must not see it.
    """

    id: str
    image: str
    hypothesis: str
    label: str
    premise: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """The files that the record needs."""
        return (self.image,)


Record = Captioned | Question | ImagePair | Entailment
