"""Four tasks derived from the pictogram corpus; they are our own, not published benchmarks.

    data = open_pictogram_task("pictogram-questions", "data/pictograms")
    for record in data.read("test-twitter-seen"):
        image = data.open_image(record.image)

==================== ========= =================================================== ========================
name                 task      what is asked                                       a blind model's accuracy
==================== ========= =================================================== ========================
pictogram-questions  vqa       yes/no, object, group, main color, number shown     yes/no: one half at most
pictogram-pairs      nlvr2     is a sentence true for two images                   exactly one half
pictogram-entailment ve        what is in a corner of a partly covered canvas      exactly one third
pictogram-retrieval  retrieval which image has this name                           chance
==================== ========= =================================================== ========================

The splits are the corpus' own (:mod:`ashnets.data.pictograms.splits`) and every item uses only drawings of its
split: test vendors are never trained on, and the concepts of ``…-new`` share no word with any trained one.
On ``…-new`` there are no questions for objects, since a classifier does not know the answers. Corpus and
seed determine everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from PIL import Image

from ashnets.data.benchmarks.records import Record
from ashnets.data.corpus import Split, open_corpus
from ashnets.data.images import load_image, load_rgba
from ashnets.data.pictograms.canvas import COVER, draw_canvas, is_canvas, read_name
from ashnets.data.pictograms.color import main_color
from ashnets.data.pictograms.records import Drawn, Ring, captioned, hypotheses, pairs, questions
from ashnets.errors import ConfigurationError, DataError, did_you_mean

_TEXTS = ("image_id", "name", "group", "captions")


class PictogramTask:
    """A derived task on a corpus on disk; it is read like a benchmark.

    Args:
        folder: of the corpus.
        seed: of all random choices.

    Raises:
        DataError: no corpus there.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    default_split: ClassVar[str] = "test-twitter-seen"

    def __init__(self, folder: str | os.PathLike, seed: int = 0) -> None:
        self.corpus, self.seed = open_corpus(os.fspath(folder)), seed
        self.folder = self.corpus.path
        self._opened: dict[str, Split] = {}
        self._places: dict[str, tuple[str, int]] = {}  # image_id → split, row
        self._made: dict[str, list[Record]] = {}  # of a split: colors are read from every drawing

    def __getstate__(self) -> dict[str, object]:
        """Without the images: a worker of a DataLoader reads its own."""
        return {**self.__dict__, "_opened": {}, "_places": {}, "_made": {}}

    @property
    def splits(self) -> list[str]:
        """Those of the corpus."""
        return self.corpus.splits

    def read(self, split: str) -> Iterator[Record]:
        """The records of one split. Raises DataError if there is none, or too few drawings in it."""
        return iter(self.records(split))

    def records(self, split: str) -> list[Record]:
        """The records of one split, the same at each call."""
        if split not in self._made:
            table = self._open(split).table.select(_TEXTS)
            drawings = [
                Drawn(row["image_id"], row["name"], row["group"], tuple(row["captions"])) for row in table.to_pylist()
            ]
            self._made[split] = self._records(Ring(drawings, self.seed, split), split)
        return list(self._made[split])

    def _records(self, ring: Ring, split: str) -> list[Record]:
        raise NotImplementedError

    def open_image(self, name: str) -> Image.Image:
        """A drawing on white, or a canvas of several, in RGB. Raises DataError for one that the corpus has not."""
        if is_canvas(name):
            return draw_canvas(name, self._drawing)
        return self._drawing(name)

    def has_image(self, name: str) -> bool:
        """Whether the corpus contains all drawings of an image."""
        parts = read_name(name)[1] if is_canvas(name) else [name]
        return all(part == COVER or self._place(part) is not None for part in parts)

    def _drawing(self, image_id: str) -> Image.Image:
        return load_image(self._bytes(image_id))

    def _bytes(self, image_id: str) -> bytes:
        place = self._place(image_id)
        if place is None:
            raise DataError(f"{self.folder} contains no drawing {image_id!r}. Was the corpus built again?")
        return self._open(place[0]).table["image"][place[1]].as_py()

    def _place(self, image_id: str) -> tuple[str, int] | None:
        if not self._places:
            for split in self.splits:
                for row, name in enumerate(self._open(split).column("image_id")):
                    self._places[name] = (split, row)
        return self._places.get(image_id)

    def _open(self, split: str) -> Split:
        if split not in self._opened:
            self._opened[split] = self.corpus.split(split)
        return self._opened[split]


class PictogramQuestions(PictogramTask):
    """Question answering derived from pictograms."""

    name = "pictogram-questions"
    title = "Questions about pictograms (derived)"

    def _records(self, ring: Ring, split: str) -> list[Record]:
        def color(image_id: str) -> str | None:
            return main_color(load_rgba(self._bytes(image_id)))

        return list(questions(ring, objects=not split.endswith("-new"), color=color))


class PictogramPairs(PictogramTask):
    """Reasoning about two images, derived from pictograms."""

    name = "pictogram-pairs"
    title = "Pairs of pictograms (derived)"

    def _records(self, ring: Ring, split: str) -> list[Record]:
        return list(pairs(ring, split))


class PictogramEntailment(PictogramTask):
    """Entailment, derived from pictograms."""

    name = "pictogram-entailment"
    title = "Entailment by pictograms (derived)"

    def _records(self, ring: Ring, split: str) -> list[Record]:
        return list(hypotheses(ring, split))


class PictogramRetrieval(PictogramTask):
    """Retrieval over the drawings of a split."""

    name = "pictogram-retrieval"
    title = "Retrieval of pictograms (derived)"

    def _records(self, ring: Ring, split: str) -> list[Record]:
        return list(captioned(ring, captions=split == "train"))


PICTOGRAM_TASKS: dict[str, type[PictogramTask]] = {
    task.name: task for task in (PictogramQuestions, PictogramPairs, PictogramEntailment, PictogramRetrieval)
}


def open_pictogram_task(name: str, folder: str | os.PathLike, seed: int = 0) -> PictogramTask:
    """A derived task on the corpus in ``folder``.

    Raises:
        ConfigurationError: no such task.
        DataError: no corpus there.
    """
    if name not in PICTOGRAM_TASKS:
        hint = did_you_mean(name, PICTOGRAM_TASKS)
        raise ConfigurationError(
            f"no task {name!r} is derived from pictograms.{hint} There are {', '.join(PICTOGRAM_TASKS)}."
        )
    return PICTOGRAM_TASKS[name](folder, seed)
