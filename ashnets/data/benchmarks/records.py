"""The records of all benchmarks: four kinds, each with the names of its images. No image is opened.

An image's name is its published path (``train2014/COCO_train2014_000000000009.jpg``). `Benchmark.image_path` finds
the file on disk, when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[int, int, int, int]  # left, top, width, height, in pixels


@dataclass(frozen=True, slots=True)
class Captioned:
    """An image and its captions.

    Attributes:
        id: the image's id as published.
        image: its file.
        captions: at least one; empty ones are left out.
        caption_ids: one for each caption.
        boxes: one for each caption if captions describe regions, else empty.
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
        answers: of every annotator, in order; empty if the answers are not published.
        answer: the correct answer, or the most frequent one; None if it is not published.
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
    """A sentence that is true or false for two images.

    Attributes:
        id: ``split-set-pair-sentence``.
        images: the files of the left and the right one.
        sentence: as published.
        label: whether the sentence is true.
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
        premise: ``sentence1``, the caption that the image replaces; a model must not see it.
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
