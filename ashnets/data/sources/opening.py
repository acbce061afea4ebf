"""Captioned images in any form: a built corpus, parquet files or a folder of images.

    source = open_source("my-images")
    source.kind, source.splits, source.split("train").num_rows

`Pairs` decodes what a source contains.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ashnets.data.corpus import MANIFEST, open_corpus
from ashnets.data.folders import as_given, by_suffix, listed, printable, walk
from ashnets.data.images import is_image
from ashnets.data.sources.folder import METADATA, read_folder
from ashnets.data.sources.parquet import read_parquet, split_of_file
from ashnets.data.sources.rows import as_table, split_name
from ashnets.errors import ConfigurationError, DataError
from ashnets.words import command

log = logging.getLogger("ashnets.data")
BUILT = {  # name of a folder → words of the command that builds it, which does so in data/ by default
    "pictograms": ("pictograms",),
    "pictograms-openclipart": ("pictograms", "--with", "openclipart"),
    "stamps": ("stamps",),
    "stamps-drawings": ("stamps", "--only", "drawings"),
    "stamps-photographs": ("stamps", "--only", "photographs"),
}
ENOUGH = 50  # held-out images, where a folder has five times as many

FORMS = (
    f"Give a corpus ({MANIFEST}), a .parquet file or a folder of them, or a folder of images with metadata.jsonl, "
    "metadata.csv or a .txt file next to each image."
)


@dataclass(frozen=True)
class Source:
    """Captions and image locations; created by `open_source`.

    Attributes:
        path: what was opened.
        kind: ``corpus``, ``parquet``, ``folder`` or ``joined``.
        folder: the files in ``rows`` are relative to it.
        rows: a table of the columns ``rows.ROWS``.
        left_out: images in the folder that its metadata does not name.
        unreadable: a sentence for each folder that cannot be listed, and for each entry with the name of an image or of
            metadata that is not a file.
        passed_over: suffix → number, of other files.
        title: a name for published records; by default that of ``path``.
    """

    path: Path
    kind: str
    folder: Path
    rows: pa.Table = field(repr=False)
    left_out: int = 0
    unreadable: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    title: str = ""

    @property
    def splits(self) -> list[str]:
        """Names of the splits, ``train`` and ``valid`` first."""
        names = pc.unique(self.rows["split"]).to_pylist()
        return sorted(names, key=lambda name: (name != "train", name != "valid", name))

    def split(self, name: str) -> pa.Table:
        """The rows of one split; ``validation`` and ``val`` also find ``valid``. Raises DataError if there is none."""
        rows = self.rows.filter(pc.equal(self.rows["split"], split_name(name)))
        if not rows.num_rows:
            raise DataError(f"{self.path}: no split {name!r}; there are {', '.join(self.splits)}.")
        return rows


def open_source(path: str | os.PathLike, hold_out: float = 0.05) -> Source:
    """Open captioned images in any supported form; no image is decoded.

    Sub-folders that cannot be read are left out with a warning, see ``Source.unreadable``.

    Args:
        path: a corpus folder (``manifest.json``); a ``.parquet`` file or a folder of them, with columns ``image``
            (bytes) or ``image_path`` / ``file_name``, and ``captions`` (list) or ``caption`` / ``text``; or a folder of
            images with ``metadata.jsonl`` / ``metadata.csv`` (``file_name`` and captions) or a ``.txt`` next to each
            image, one caption a line. ``image_id``, ``name``, ``concept`` and ``split`` are read where given.
        hold_out: where the data has no validation split, this share of ``train`` becomes ``valid``, but at least 50
            images where these are no more than a fifth, else a fifth. A hash of the image id chooses them; 0 holds
            out nothing.

    Raises:
        DataError: nothing there, damaged files, images without captions, missing images, image ids given twice,
            paths that leave the folder.
        ConfigurationError: ``hold_out`` outside [0, 1).
    """
    path = Path(path)
    if not 0 <= hold_out < 1:
        raise ConfigurationError(f"hold_out={hold_out} must lie in [0, 1): it is a share of the training images")
    if path.is_file() and path.suffix.lower() == ".parquet":
        rows = as_table(read_parquet(path.parent, {path.name: split_of_file(path.name)}))
        source = Source(path, "parquet", path.parent, rows)
    elif path.is_dir():
        source = _open_folder(path)
    else:
        state = "is a file of another kind." if path.exists() else f"does not exist.{_how_to_build(path)}"
        raise DataError(f"{printable(as_given(path))} {state} {FORMS}")
    if not source.rows.num_rows:
        raise DataError(f"{path} contains no rows. {FORMS}")
    _refuse_repeated_ids(path, source.rows)
    return replace(source, rows=_hold_out(path, source.rows, hold_out))


def _how_to_build(path: Path) -> str:
    """The command that builds the data of this name, as a sentence; empty for other names."""
    found = BUILT.get(path.name)
    return "" if found is None else f" To build it: `{command('data', *found, '--output', path)}`."


def _open_folder(path: Path) -> Source:
    if (path / MANIFEST).is_file():
        corpus = open_corpus(path)
        entries = {corpus.file(name): name for name in corpus.splits}
        rows, title = as_table(read_parquet(path, entries, name_comes_first=True)), corpus.manifest.get("title")
        return Source(path, "corpus", path, rows, title=title if isinstance(title, str) else "")
    found = walk(path)
    files = list(found.files)
    unreadable = tuple(found.faults(lambda file: is_image(file) or PurePosixPath(file).name in METADATA).values())
    if unreadable:
        more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        log.warning("left out, %d in all: %s%s", len(unreadable), "; ".join(unreadable[:3]), more)
    parquet = {file: split_of_file(file) for file in files if file.lower().endswith(".parquet")}
    if parquet:
        return Source(path, "parquet", path, as_table(read_parquet(path, parquet)), unreadable=unreadable)
    if not any(is_image(file) for file in files):
        instead = f", but {listed(by_suffix(files))}" if files else ""
        raise DataError(f"{path} contains neither images nor parquet files{instead}. {FORMS}")
    rows = as_table(read_folder(path, files))
    named = set(rows["file"].to_pylist())
    left_out = sum(is_image(file) and file not in named for file in files)
    others = [file for file in files if not is_image(file) and not file.endswith((".txt", *METADATA))]
    return Source(path, "folder", path, rows, left_out, unreadable, by_suffix(others))


def _refuse_repeated_ids(path: Path, rows: pa.Table) -> None:
    ids = rows["image_id"].to_pylist()
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for i, name in enumerate(ids):
        if name in first:
            places = [_place(rows.slice(row, 1).to_pylist()[0]) for row in (first[name], i)]
            raise DataError(
                f"{path}: image_id {name!r} occurs twice ({places[0]} and {places[1]}), and {len(ids) - len(set(ids))} "
                "rows in all repeat an id. Make the ids unique; several captions of an image belong in one row, as a "
                "list in 'captions'."
            )
        first[name] = i


def _place(row: dict) -> str:
    return row["file"] if row["row"] < 0 else f"{row['file']}, row {row['row']}"


def _hold_out(path: Path, rows: pa.Table, share: float) -> pa.Table:
    """Move a share of ``train`` to ``valid``: at least one image, never all; the order of the rows does not matter.

    Among a few images every recall is near 1, so a small folder gives up to a fifth.
    """
    splits = np.array(rows["split"].to_pylist(), dtype=object)
    train = np.flatnonzero(splits == "train")
    if share == 0 or "valid" in splits or not len(train):
        return rows
    if len(train) == 1:
        raise DataError(
            f"{path} contains one training image, so none can be held out as the split valid. Add images; in Python, "
            "hold_out=0 holds out none."
        )
    ids = rows["image_id"].to_pylist()
    order = sorted(train, key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    least = max(min(ENOUGH, len(train) // 5), 1)
    splits[order[: min(max(round(share * len(train)), least), len(train) - 1)]] = "valid"
    return rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))
