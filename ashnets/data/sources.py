"""Pictures with captions from anywhere: a built corpus, parquet files, a folder of pictures.

    source = open_source("my-pictures")
    source.kind, source.splits, source.split("train").num_rows

`Pairs` decodes what a source holds.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ashnets.data.corpus import MANIFEST, open_corpus
from ashnets.data.source_folder import is_picture, read_folder
from ashnets.data.source_parquet import read_parquet, split_of_file
from ashnets.data.source_rows import as_table, split_name
from ashnets.errors import ConfigurationError, DataError

FORMS = (
    f"Give a corpus ({MANIFEST}), a .parquet file or a folder of them, or a folder of pictures with metadata.jsonl, "
    "metadata.csv or a .txt beside each picture."
)


@dataclass(frozen=True)
class Source:
    """Captions and the places of pictures; made by `open_source`.

    Attributes:
        path: what was opened.
        kind: ``corpus``, ``parquet`` or ``folder``.
        folder: what the files in ``rows`` are relative to.
        rows: a table of the columns ``source_rows.ROWS``.
        left_out: pictures in the folder that its metadata does not name.
    """

    path: Path
    kind: str
    folder: Path
    rows: pa.Table = field(repr=False)
    left_out: int = 0

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
    """Open pictures with captions, whatever their form; no picture is decoded.

    Args:
        path: a corpus folder (``manifest.json``); a ``.parquet`` file or a folder of them, with columns ``image``
            (bytes) or ``image_path`` / ``file_name``, and ``captions`` (list) or ``caption`` / ``text``; or a folder of
            pictures with ``metadata.jsonl`` / ``metadata.csv`` (``file_name`` and captions) or a ``.txt`` beside each
            picture, one caption a line. ``image_id``, ``name``, ``concept`` and ``split`` are read where given.
        hold_out: where the data has no validation split, this share of ``train`` becomes ``valid``, chosen by a hash of
            the image id; 0 holds out nothing.

    Raises:
        DataError: nothing there, damaged files, pictures without captions, missing pictures, image ids given twice,
            paths that leave the folder.
        ConfigurationError: ``hold_out`` outside [0, 1).
    """
    path = Path(path)
    if not 0 <= hold_out < 1:
        raise ConfigurationError(f"hold_out={hold_out} must lie in [0, 1): it is a share of the training pictures")
    if path.is_file() and path.suffix.lower() == ".parquet":
        kind, folder, left_out = "parquet", path.parent, 0
        rows = as_table(read_parquet(folder, {path.name: split_of_file(path.name)}))
    elif path.is_dir():
        folder = path
        kind, rows, left_out = _open_folder(path)
    else:
        state = "is a file of another kind" if path.exists() else "does not exist"
        raise DataError(f"{path} {state}. {FORMS}")
    if not rows.num_rows:
        raise DataError(f"{path} holds no rows. {FORMS}")
    _refuse_repeated_ids(path, rows)
    return Source(path, kind, folder, _hold_out(path, rows, hold_out), left_out)


def _open_folder(path: Path) -> tuple[str, pa.Table, int]:
    """Kind, rows and the number of pictures that the metadata does not name."""
    if (path / MANIFEST).is_file():
        corpus = open_corpus(path)
        entries = {corpus.file(name): name for name in corpus.splits}
        return "corpus", as_table(read_parquet(path, entries, name_comes_first=True)), 0
    files = _files(path)
    parquet = {file: split_of_file(file) for file in files if file.lower().endswith(".parquet")}
    if parquet:
        return "parquet", as_table(read_parquet(path, parquet)), 0
    if not any(is_picture(file) for file in files):
        raise DataError(f"{path} holds neither pictures nor parquet files. {FORMS}")
    rows = as_table(read_folder(path, files))
    named = set(rows["file"].to_pylist())
    return "folder", rows, sum(is_picture(file) and file not in named for file in files)


def _files(folder: Path) -> list[str]:
    """Paths of all files, relative, sorted; hidden files and folders are left out."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        part = PurePosixPath(Path(place).relative_to(folder).as_posix())
        found += [(part / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _refuse_repeated_ids(path: Path, rows: pa.Table) -> None:
    ids = rows["image_id"].to_pylist()
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for i, name in enumerate(ids):
        if name in first:
            places = [_place(rows.slice(row, 1).to_pylist()[0]) for row in (first[name], i)]
            raise DataError(
                f"{path}: image_id {name!r} stands twice ({places[0]} and {places[1]}), and {len(ids) - len(set(ids))} "
                "rows in all repeat an id. Make the ids unique; several captions of a picture belong in one row, as a "
                "list in 'captions'."
            )
        first[name] = i


def _place(row: dict) -> str:
    return row["file"] if row["row"] < 0 else f"{row['file']}, row {row['row']}"


def _hold_out(path: Path, rows: pa.Table, share: float) -> pa.Table:
    """Move a share of ``train`` to ``valid``: at least one picture, never all, whatever the order of the rows."""
    splits = np.array(rows["split"].to_pylist(), dtype=object)
    train = np.flatnonzero(splits == "train")
    if share == 0 or "valid" in splits or not len(train):
        return rows
    if len(train) == 1:
        raise DataError(f"{path} holds one training picture, so none can be held out. Add pictures, or use hold_out=0.")
    ids = rows["image_id"].to_pylist()
    order = sorted(train, key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    splits[order[: min(max(round(share * len(train)), 1), len(train) - 1)]] = "valid"
    return rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))
