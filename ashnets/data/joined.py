"""MSCOCO and Visual Genome as one corpus, from their published files: each image is one sample.

    source, counts = open_joined({"coco-captions": "coco", "visual-genome": "visual-genome"}, "data")

    split    images
    train    COCO's train and restval of Karpathy's split; Visual Genome's images that are not left out
    valid    COCO's val of the same split

About half of Visual Genome's images are COCO's; ``image_data.json`` says which. An image of both sets is one sample:
COCO's file, COCO's captions and Visual Genome's regions. Left out by id are images of COCO's val and test, images of
COCO's own test sets (an id that Karpathy's split does not contain), and Flickr30K's val and test, if
``dataset_flickr30k.json`` is in the folder of ``dataset_coco.json`` (both are in Karpathy's archive).

How many captions of an image an epoch shows is the recipe's ``passes``. The paper does not say what its epoch is, but
that it takes 2.3 to 2.8 hours on eight A100 with 16 pairs each. Some 170,000 images remain here:

    one caption an image     1,330 steps, 6.2 to 7.6 s each
    10 captions an image    13,300 steps, 0.62 to 0.76 s
    all 6 million pairs     46,700 steps, 0.18 to 0.22 s

A step of ResNet-152 takes about 6 TFLOP a device (``zoo/README.md``: 27 GMAC for image and text; four joint passes;
backward twice the forward pass). One caption an image would mean 1 TFLOP/s, a three-hundredth of an A100: the paper's
epoch shows more. 10 captions mean 9 TFLOP/s, half of its fp32; all pairs 30 TFLOP/s, a tenth of its bf16. Both are
possible. ``pretrain-coco-vg`` takes 10 passes: an image's captions and regions are drawn
evenly. In 40 epochs, each of COCO's five captions is drawn 80 times if the image has no regions. If it has 50, each
caption and each region is drawn about 7 times.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from ashnets.data.benchmarks.benchmark import Benchmark
from ashnets.data.benchmarks.coco_captions import CocoCaptions
from ashnets.data.benchmarks.faults import BROKEN, MISSING, Faults, Place
from ashnets.data.benchmarks.flickr30k import Flickr30K
from ashnets.data.benchmarks.karpathy import SPLITS
from ashnets.data.benchmarks.records import Captioned
from ashnets.data.benchmarks.visual_genome import VisualGenomeRegions
from ashnets.data.sources.opening import Source
from ashnets.data.sources.rows import ROWS
from ashnets.errors import ConfigurationError, DataError, did_you_mean
from ashnets.files import JsonObject

COCO, VISUAL_GENOME = CocoCaptions.name, VisualGenomeRegions.name
_USED = {"train": "train", "restval": "train", "val": "valid"}  # COCO's splits
_EVALUATED = ("val", "test")
_IN_FLICKR30K = "Flickr30K val or test"
_FLICKR30K = "dataset_flickr30k.json"
_TEXTS = pa.list_(pa.large_string())
_BATCH = 4096


def open_joined(
    folders: Mapping[str, str | os.PathLike], root: str | os.PathLike = ".", faults: Faults | None = None
) -> tuple[Source, JsonObject]:
    """Read the annotation files of both sets; no image is decoded or copied.

    Args:
        folders: ``coco-captions`` and, optionally, ``visual-genome`` → folder, relative to ``root``.
        faults: collects broken entries and missing images; by default the first one raises.

    Returns:
        The source, and counts: ``{"images": {set: n}, "in both", "left out": {why: n}, "notes"}``.

    Raises:
        ConfigurationError: other sets, or Visual Genome without COCO.
        DataError: a missing file or image, or a fault in a file, with its place.
    """
    faults = Faults() if faults is None else faults
    coco, genome = _open(folders, Path(root))
    joining = _Joining(coco, genome, faults)
    joining.read_coco()
    if genome is not None:
        joining.read_genome(genome)
    title = coco.title if genome is None else "MSCOCO and Visual Genome"
    rows, base = joining.table()
    return Source(Path(root), "joined", base, rows, title=title), joining.counts()


def _open(folders: Mapping[str, str | os.PathLike], root: Path) -> tuple[CocoCaptions, VisualGenomeRegions | None]:
    known = (COCO, VISUAL_GENOME)
    if unknown := sorted(set(folders) - set(known)):
        raise ConfigurationError(
            f"corpus names {unknown[0]!r}.{did_you_mean(unknown[0], known)} Joined corpora are {' and '.join(known)}."
        )
    if COCO not in folders:
        raise ConfigurationError(
            f"corpus names {', '.join(folders) or 'nothing'} without {COCO}: its split says which images are for tests"
        )
    coco = CocoCaptions(root / folders[COCO])
    return coco, VisualGenomeRegions(root / folders[VISUAL_GENOME]) if VISUAL_GENOME in folders else None


class _Joining:
    """The rows of a joined corpus while they are read."""

    def __init__(self, coco: CocoCaptions, genome: VisualGenomeRegions | None, faults: Faults) -> None:
        self.coco, self.faults = coco, faults
        self.images: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.both = 0
        self.notes: list[str] = []
        self.missing: list[str] = []
        self.reason: dict[int, str] = {}  # COCO id → why it is not trained on, "" for those that are
        self.row_of: dict[int, int] = {}  # COCO id → row
        self.ids: list[str] = []
        self.splits: list[str] = []
        self.files: list[str] = []
        self.owners: list[int] = []  # the row of each element of `captions`
        self.captions: list[pa.Array] = []
        self.flickr30k = self._flickr30k()
        self.flickr_of = coco.flickr_ids(faults) if self.flickr30k else {}

    def _flickr30k(self) -> set[int]:
        """Flickr's ids of Flickr30K's val and test: their file names."""
        path = self.coco.file("dataset_coco.json").with_name(_FLICKR30K)
        if not path.is_file():
            self.notes.append(f"Flickr30K's test images are not left out: {path} is missing")
            return set()
        records = (record for _, _, record in Flickr30K(path.parent).located(_EVALUATED, self.faults.fresh()))
        stems = (Path(image).stem for record in records for image in record.images)
        return {int(stem) for stem in stems if stem.isdecimal()}

    def read_coco(self) -> None:
        """Train, restval and val; of test the ids."""
        files = _Files(self.coco)
        self._take(self._of_coco(files))

    def _of_coco(self, files: _Files) -> Iterator[tuple[int, Captioned]]:
        for split, place, record in self.coco.located(SPLITS, self.faults):
            assert isinstance(record, Captioned)
            number = int(record.id)
            self.images["COCO"] += 1
            reason = f"COCO {split}" if split in _EVALUATED else ""
            if not reason and self.flickr_of.get(number) in self.flickr30k:
                reason = _IN_FLICKR30K
            self.reason[number] = reason
            if reason and split != "val":
                self.left_out[reason] += 1
            elif (row := self._add(files, place, record.image, record.image, _USED[split])) is not None:
                self.row_of[number] = row
                yield row, record

    def read_genome(self, genome: VisualGenomeRegions) -> None:
        """Regions of the images that are not left out."""
        self._take(self._of_genome(genome, _Files(genome)))

    def _of_genome(self, genome: VisualGenomeRegions, files: _Files) -> Iterator[tuple[int, Captioned]]:
        elsewhere = genome.elsewhere(self.faults)
        faults = self.faults.fresh()
        for _, place, record in genome.located(["all"], faults):
            assert isinstance(record, Captioned)
            self.images["Visual Genome"] += 1
            if int(record.id) not in elsewhere:
                message = (
                    f"image {record.id} is not in image_data.json: nothing says whether it is a test image of COCO."
                )
                self.faults.report(BROKEN, place, f"{message} Download that file again.")
                continue
            coco_id, flickr_id = elsewhere[int(record.id)]
            row: int | None
            reason = "" if coco_id is None else self.reason.get(coco_id, "COCO test2014 or test2015")
            if not reason and flickr_id in self.flickr30k:
                reason = _IN_FLICKR30K
            if reason:
                self.left_out[f"Visual Genome, in {reason}"] += 1
            elif coco_id is not None and coco_id in self.row_of:
                self.both += 1
                yield self.row_of[coco_id], record
            elif (row := self._add(files, place, f"{VISUAL_GENOME}/{record.image}", record.image, "train")) is not None:
                if coco_id is not None:
                    self.row_of[coco_id] = row
                yield row, record

    def _add(self, files: _Files, place: Place, image_id: str, image: str, split: str) -> int | None:
        """A new row; None, and a fault, if its image is missing."""
        file = files.find(image)
        if file is None:
            self.missing.append(f"{image} under {files.folder}")
            if self.faults.collect:
                self.faults.report(MISSING, place, f"image {image} is missing.")
            return None
        self.ids.append(image_id)
        self.splits.append(split)
        self.files.append(file)
        return len(self.ids) - 1

    def _take(self, records: Iterator[tuple[int, Captioned]]) -> None:
        """Only a few thousand records at a time exist as Python objects."""
        while batch := list(islice(records, _BATCH)):
            self.owners += [row for row, _ in batch]
            self.captions.append(pa.array([list(record.captions) for _, record in batch], _TEXTS))

    def table(self) -> tuple[pa.Table, Path]:
        """All rows, and the folder that their files are relative to."""
        if self.missing and not self.faults.collect:
            raise DataError(
                f"{len(self.missing)} of {len(self.missing) + len(self.ids)} images are missing, {self.missing[0]} "
                "for one; `ashnets data check` lists them and says where they come from"
            )
        if not self.ids:
            raise DataError(f"{self.coco.folder}: no image is left to train on")
        base = os.path.commonpath([os.path.dirname(file) for file in dict.fromkeys(self.files)])
        texts = _gathered(self.captions, np.array(self.owners), len(self.ids))
        first = texts.flatten().take(texts.offsets.slice(0, len(texts)))
        columns = {
            "image_id": self.ids,
            "split": self.splits,
            "name": first.cast(pa.string()),
            "concept": pa.nulls(len(self.ids), pa.string()),
            "captions": texts,
            "file": [os.path.relpath(file, base).replace(os.sep, "/") for file in self.files],
            "row": np.full(len(self.ids), -1),
        }
        return pa.table(columns, ROWS), Path(base)

    def counts(self) -> JsonObject:
        """What was joined, and what was left out."""
        return {
            "images": dict(self.images),
            "in both": self.both,
            "left out": dict(self.left_out),
            "notes": self.notes,
        }


class _Files:
    """Which images exist, from one listing of each folder: asking for each of 200,000 files takes minutes on a network
    disk."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.folder, self.parts = os.path.abspath(benchmark.images), benchmark.image_folders
        self.listed: dict[str, set[str]] = {}

    def find(self, image: str) -> str | None:
        """The file of an image by its published name."""
        inside, _, name = image.rpartition("/")
        for part in self.parts:
            place = os.path.join(self.folder, part, inside) if part or inside else self.folder
            if place not in self.listed:
                try:
                    self.listed[place] = set(os.listdir(place))
                except OSError:
                    self.listed[place] = set()
            if name in self.listed[place]:
                return os.path.join(place, name)
        return None


def _gathered(lists: Iterable[pa.Array], owners: np.ndarray, rows: int) -> pa.Array:
    """Lists of texts, each of a row, to one list for each row, in the order given."""
    together = pa.chunked_array(list(lists), _TEXTS).combine_chunks()
    lengths = together.value_lengths().to_numpy()
    of = np.repeat(owners, lengths)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=rows))])
    order = np.argsort(of, kind="stable")
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), together.flatten().take(pa.array(order)), _TEXTS)
