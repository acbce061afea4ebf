"""One row of any source in one form: the location of the image, its concept and its captions."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypedDict

import pyarrow as pa

from ashnets.data.folders import kind, printable, reason
from ashnets.errors import DataError

ROWS = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),
        ("name", pa.string()),
        ("concept", pa.string()),  # null where the data names none
        ("captions", pa.list_(pa.large_string())),  # at least one
        ("file", pa.string()),  # relative to the source's folder
        ("row", pa.int64()),  # of a parquet file; -1 where the file is the image
    ]
)


class SourceRow(TypedDict):
    """A row of `ROWS`."""

    image_id: str
    split: str
    name: str
    concept: str | None
    captions: list[str]
    file: str
    row: int


CAPTIONS = ("captions", "caption", "text")
PATHS = ("image_path", "file_name")
TEXTS = ("image_id", "name", "concept", "split")

_WORDS = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid", "testing": "test"}
SPLIT_WORDS = {*_WORDS, *_WORDS.values()}


def split_name(name: str) -> str:
    """``validation``, ``val`` and ``dev`` are ``valid``; ``training`` is ``train``; any other name stays."""
    word = _WORDS.get(name.lower(), name.lower())
    return word if word in SPLIT_WORDS else name


def clean_row(
    raw: Mapping[str, object],
    where: str,
    *,
    file: str,
    row: int,
    image_id: str,
    split: str,
    name_comes_first: bool = False,
) -> SourceRow:
    """A row of `ROWS`; ``image_id`` and ``split`` are defaults. Raises DataError, naming ``where``.

    Texts and paths must be valid Unicode: lone surrogates are refused.

    A ``name`` becomes the first caption, unless the captions already begin with it. ``name_comes_first`` says that they
    do, in other words: in a corpus, name "woman red hair" has the first caption "woman with red hair".
    """
    _require_unicode(file, "the image's path", where, "Rename the file")
    texts = {key: _text(raw, key, where) for key in TEXTS}
    captions = _captions(raw, where)
    name = texts["name"]
    comes_first = bool(captions) and (name_comes_first or captions[0].casefold() == (name or "").casefold())
    if name and not comes_first:
        captions = [name, *captions]
    if not captions:
        raise DataError(
            f"{where}: the image has no caption; give it {', '.join(CAPTIONS[:-1])} or {CAPTIONS[-1]}, or remove it."
        )
    return {
        "image_id": texts["image_id"] or image_id,
        "split": split_name(texts["split"] or split),
        "name": name or captions[0],
        "concept": texts["concept"],
        "captions": captions,
        "file": file,
        "row": row,
    }


def _text(raw: Mapping[str, object], key: str, where: str) -> str | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"{where}: key {key!r} is {_shown(value)}; give a string or an integer.")
    _require_unicode(str(value), f"key {key!r}", where)
    return str(value).strip() or None


def _captions(raw: Mapping[str, object], where: str) -> list[str]:
    for key in CAPTIONS:
        value = raw.get(key)
        if value is None:
            continue
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: key {key!r} is {_shown(value)}; give a string or a list of strings.")
        for text in texts:
            _require_unicode(text, f"key {key!r}", where)
        kept = [text.strip() for text in texts if text.strip()]
        if kept:
            return kept
    return []


def _require_unicode(text: str, what: str, where: str, remedy: str = "Correct it") -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = f"character {error.start + 1} is {ascii(text[error.start])[1:-1]}"
        raise DataError(
            f"{printable(where)}: {what} is {_shown(text)}, which is not valid Unicode ({place}). {remedy}."
        ) from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def path_inside(name: object, where: str) -> str:
    """A path that data names, relative to its folder. Raises DataError if it leaves that folder.

    Links are followed: whoever laid out the folder made them, and the Hub's own cache consists of them.
    """
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: the image's path is {_shown(name)}; give its file name ({' or '.join(PATHS)}).")
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.anchor or ".." in path.parts:
            raise DataError(f"{where}: the path {_shown(name)} leaves the folder; images must lie inside it.")
    return PurePosixPath(name).as_posix()


class Missing:
    """Images that are named but missing: all are counted, the first three are reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: list[str] = []
        self.count = 0

    def look(self, file: str, where: str) -> None:
        try:
            mode = os.stat(self.folder / file).st_mode
            why = "" if stat.S_ISREG(mode) else f" ({kind(mode)})"
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
            mode, why = 0, ""
        except OSError as error:
            mode, why = 0, f" ({reason(error)})"
        if not stat.S_ISREG(mode):
            self.count += 1
            if self.count <= 3:
                self.places.append(f"{where}: {file}{why}")

    def complain(self) -> None:
        if self.count:
            more = f", and {self.count - 3} more" if self.count > 3 else ""
            raise DataError(
                f"{self.folder}: {self.count} image{'s are' if self.count > 1 else ' is'} missing: "
                f"{'; '.join(self.places)}{more}. Put them there or remove their rows."
            )


def as_table(rows: Iterable[SourceRow]) -> pa.Table:
    """Rows as one table; only a few thousand at a time exist as Python objects."""
    return pa.Table.from_batches(_batches(iter(rows)), schema=ROWS)


def _batches(rows: Iterator[SourceRow]) -> Iterator[pa.RecordBatch]:
    while batch := list(itertools.islice(rows, 4096)):
        yield pa.RecordBatch.from_pylist(batch, schema=ROWS)
