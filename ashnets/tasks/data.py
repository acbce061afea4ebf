"""Any data set of a task under one name: a published benchmark or a task derived from pictograms."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ashnets.data.benchmarks import BENCHMARKS, Benchmark, Captioned, open_benchmark
from ashnets.data.pictograms.tasks import PICTOGRAM_TASKS, PictogramTask, open_pictogram_task
from ashnets.data.sources.opening import Source, open_source
from ashnets.data.sources.rows import ROWS, split_name
from ashnets.errors import ConfigurationError, DataError, did_you_mean

TaskData = Benchmark | PictogramTask


def open_task_data(name: str, folder: str | os.PathLike, images: str | os.PathLike | None = None) -> TaskData:
    """A data set on disk.

    Args:
        name: a key of ``BENCHMARKS`` or ``PICTOGRAM_TASKS``.
        folder: of its annotations, or of the pictogram corpus.
        images: holds the images, where they lie elsewhere.

    Raises:
        ConfigurationError: no such data set, or ``images`` for one that holds its own.
        DataError: nothing there.
    """
    if name in PICTOGRAM_TASKS:
        if images is not None:
            raise ConfigurationError(f"--images {images}: {name} draws its images from the corpus; leave it out")
        return open_pictogram_task(name, folder)
    if name in BENCHMARKS:
        return open_benchmark(name, folder, images)
    known = [*BENCHMARKS, *PICTOGRAM_TASKS]
    raise ConfigurationError(f"no data set {name!r}.{did_you_mean(name, known)} There are {', '.join(known)}.")


def require_kind(data: TaskData, records: Sequence[Any], kind: type, task: str) -> None:
    """Raises ConfigurationError if the records are of another task, DataError if there are none."""
    if not records:
        raise DataError(f"{data.folder}: {data.title} gives no items")
    if not isinstance(records[0], kind):
        found = type(records[0]).__name__
        raise ConfigurationError(f"{data.title} holds {found} records; {task} takes {kind.__name__}")


def require_images(data: TaskData, records: Sequence[Any]) -> None:
    """Raises DataError, with counts, if images of the records are missing; nothing is decoded."""
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
) -> tuple[list[Any], list[Any], list[str]]:
    """Records to train on and to validate by.

    Where the data has no split ``valid``, the items of a share ``hold_out`` of the training images are taken out,
    chosen by a hash of the images' names: no image is on both sides.

    Returns:
        The two, and sentences on what was held out.

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


def drawn(records: Sequence[Any], count: int, seed: int) -> list[Any]:
    """``count`` of the records in their order, drawn by the seed; all of them if there are no more, or for 0."""
    if not 0 < count < len(records):
        return list(records)
    chosen = np.random.default_rng(seed).choice(len(records), count, replace=False)
    return [records[i] for i in sorted(chosen.tolist())]


def as_source(data: TaskData, splits: Sequence[str]) -> Source:
    """Captioned images as a source of pairs, as pre-training reads them.

    Raises:
        DataError: images are missing.
        ConfigurationError: the data has no captions.
    """
    if isinstance(data, PictogramTask):
        return open_source(data.folder)
    rows = []
    for split in splits:
        records: list[Any] = data.records(split)
        require_kind(data, records, Captioned, "retrieval")
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
