"""The data sets of tasks by name: published benchmarks, and tasks derived from pictograms."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ashnets.data.benchmarks import BENCHMARKS, Benchmark, Captioned, open_benchmark
from ashnets.data.benchmarks.records import Record
from ashnets.data.pictograms.tasks import PICTOGRAM_TASKS, PictogramTask, open_pictogram_task
from ashnets.data.sources.opening import Source, open_source
from ashnets.data.sources.rows import ROWS, split_name
from ashnets.errors import ConfigurationError, DataError, did_you_mean

TaskData = Benchmark | PictogramTask
One = TypeVar("One")
OfKind = TypeVar("OfKind", bound=Record)


def open_task_data(name: str, folder: str | os.PathLike, images: str | os.PathLike | None = None) -> TaskData:
    """A data set on disk.

    Args:
        name: a key of ``BENCHMARKS`` or ``PICTOGRAM_TASKS``.
        folder: contains the annotations, or the pictogram corpus.
        images: contains the images, if they are in another folder.

    Raises:
        ConfigurationError: no such data set, or ``images`` for a data set that contains its own.
        DataError: the folder contains no such data.
    """
    if name in PICTOGRAM_TASKS:
        if images is not None:
            raise ConfigurationError(f"--images {images}: {name} draws its images from the corpus; leave it out")
        return open_pictogram_task(name, folder)
    if name in BENCHMARKS:
        return open_benchmark(name, folder, images)
    known = [*BENCHMARKS, *PICTOGRAM_TASKS]
    raise ConfigurationError(f"no data set {name!r}.{did_you_mean(name, known)} There are {', '.join(known)}.")


def require_kind(data: TaskData, records: Sequence[Record], kind: type[OfKind], task: str) -> list[OfKind]:
    """The records. Raises ConfigurationError if they belong to another task, DataError if there are none."""
    if not records:
        raise DataError(f"{data.folder}: {data.title} gives no items")
    found: list[OfKind] = []
    for record in records:
        if not isinstance(record, kind):
            other = type(record).__name__
            raise ConfigurationError(f"{data.title} holds {other} records; {task} takes {kind.__name__}")
        found.append(record)
    return found


def require_images(data: TaskData, records: Sequence[Record]) -> None:
    """Raise DataError, with counts, if images of the records are missing; nothing is decoded."""
    names = dict.fromkeys(name for record in records for name in record.images)
    there = data.has_image if isinstance(data, PictogramTask) else lambda name: data.find_image(name) is not None
    missing = [name for name in names if not there(name)]
    if missing:
        where = data.folder if isinstance(data, PictogramTask) else data.images
        raise DataError(
            f"{len(missing)} of {len(names)} images are missing or empty under {where}, {missing[0]} for one; "
            "`ashnets data check` says where they come from"
        )


def train_and_valid(
    data: TaskData, train: Sequence[str], valid: str, hold_out: float
) -> tuple[list[Record], list[Record], list[str]]:
    """Records for training and for validation.

    If the data has no split ``valid``, the items of a share ``hold_out`` of the training images are held out. A hash
    of the images' names selects these images, and no image is in both sets.

    Returns:
        Both sets, and a sentence about what was held out.

    Raises:
        DataError: a split is missing, or nothing can be held out.
    """
    records = [record for split in train for record in data.records(split)]
    known = data.all_splits() if isinstance(data, Benchmark) else data.splits
    if valid in known:
        return records, data.records(valid), []
    images = sorted({name for r in records for name in r.images}, key=lambda n: hashlib.sha256(n.encode()).digest())
    count = round(hold_out * len(images))
    if not 0 < count < len(images):
        raise DataError(
            f"{data.title} has no split {valid!r}, and hold_out={hold_out} takes {count} of its "
            f"{len(images)} training images to validate by; there are {', '.join(known)}"
        )
    held = set(images[:count])
    kept = [record for record in records if held.isdisjoint(record.images)]
    out = [record for record in records if held.issuperset(record.images)]
    return kept, out, [f"validation: {len(out)} items on {count} training images, held out by their names"]


def drawn(records: Sequence[One], count: int, seed: int) -> list[One]:
    """A random sample of ``count`` records, in their order; all records if ``count`` is 0 or too large."""
    if not 0 < count < len(records):
        return list(records)
    chosen = np.random.default_rng(seed).choice(len(records), count, replace=False)
    return [records[i] for i in sorted(chosen.tolist())]


def as_source(data: TaskData, splits: Sequence[str]) -> Source:
    """Captioned images as a source of pairs, in the form that pre-training reads.

    Raises:
        DataError: images are missing.
        ConfigurationError: the data has no captions.
    """
    if isinstance(data, PictogramTask):
        return open_source(data.folder)
    rows = []
    for split in splits:
        records = require_kind(data, data.records(split), Captioned, "retrieval")
        require_images(data, records)
        rows += [
            {
                "image_id": record.image,
                "split": split_name(split),
                "name": record.captions[0],
                "concept": None,
                "captions": list(record.captions),
                "row": -1,
                "file": data.image_path(record.image).relative_to(data.images).as_posix(),
            }
            for record in records
        ]
    return Source(Path(data.folder), "folder", data.images, pa.Table.from_pylist(rows, ROWS))
