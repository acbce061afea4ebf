"""Reading a built corpus (parquet + manifest) and a gallery (a folder of images + metadata.jsonl)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ashnets.data.sources.parquet import damaged, open_parquet
from ashnets.data.sources.rows import path_inside
from ashnets.digests import sha256_of
from ashnets.errors import DataError
from ashnets.files import JsonObject

MANIFEST = "manifest.json"
METADATA = "metadata.jsonl"
SCHEMA_VERSION = 1
GALLERY_KEYS = ("file_name", "image_id", "concept", "name", "group", "captions", "split")


class Split:
    """Rows of one split: ``split[i]`` is a dict, ``split.column("name")`` a list; images are undecoded PNG bytes."""

    def __init__(self, name: str, table: pa.Table):
        self.name = name
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> JsonObject:
        rows = len(self)
        if not -rows <= index < rows:
            raise IndexError(f"split {self.name!r} has {rows} rows; there is no row {index}")
        return self.table.slice(index % rows, 1).to_pylist()[0]

    def __iter__(self) -> Iterator[JsonObject]:
        return (row for batch in self.table.to_batches(256) for row in batch.to_pylist())

    @property
    def columns(self) -> list[str]:
        return self.table.column_names

    def column(self, name: str) -> list:
        if name not in self.columns:
            raise DataError(f"Split {self.name!r} has no column {name!r}; it has {', '.join(self.columns)}.")
        return self.table.column(name).to_pylist()


class Corpus:
    """A folder with ``manifest.json`` and one parquet file a split; made by `open_corpus`."""

    def __init__(self, path: Path, manifest: JsonObject):
        self.path = path
        self.manifest = manifest

    @property
    def splits(self) -> list[str]:
        return list(self.manifest["splits"])

    def file(self, name: str) -> str:
        """The parquet file of a split, relative to the folder. Raises DataError if it is not what the manifest says."""
        if name not in self.manifest["splits"]:
            raise DataError(f"{self.path}: no split {name!r}; there are {', '.join(self.splits)}.")
        entry = self.manifest["splits"][name]
        file = path_inside(entry["file"], f"{self.path / MANIFEST}, split {name!r}")
        rows = open_parquet(self.path / file).metadata.num_rows
        if rows != entry["rows"]:
            raise DataError(
                f"{self.path / file} has {rows} rows, the manifest says {entry['rows']}. Build the corpus again."
            )
        return file

    def split(self, name: str) -> Split:
        """Read one split into memory. Raises DataError when it is missing, damaged or not what the manifest says."""
        path = self.path / self.file(name)
        try:
            return Split(name, pq.read_table(path))
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from None

    def verify(self) -> None:
        """Compare the sha256 of every parquet file with the manifest; raises DataError at the first difference."""
        for name, entry in self.manifest["splits"].items():
            path = self.path / entry["file"]
            if not path.is_file():
                raise DataError(f"{path} is missing (split {name!r}). Build the corpus again.")
            found = sha256_of(path)
            if found != entry["sha256"]:
                raise DataError(
                    f"{path} has sha256 {found}, the manifest says {entry['sha256']}. Build the corpus again."
                )


def open_corpus(path: str | Path, *, verify: bool = False) -> Corpus:
    """Open the corpus in the folder ``path``; ``verify`` also reads every file and compares its sha256."""
    path = Path(path)
    manifest_path = path / MANIFEST
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} contains no {MANIFEST}, so it is not a complete corpus. Build one with `ashnets data pictograms`."
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest_path} cannot be read ({error}). Build the corpus again.") from None
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{manifest_path}: schema_version is {version!r}, this ashnets reads {SCHEMA_VERSION}. "
            "Build the corpus again."
        )
    splits = manifest.get("splits")
    if not isinstance(splits, dict) or not all(
        isinstance(entry, dict) and {"file", "rows", "sha256"} <= set(entry) for entry in splits.values()
    ):
        raise DataError(f"{manifest_path}: key 'splits' is missing or damaged. Build the corpus again.")
    corpus = Corpus(path, manifest)
    if verify:
        corpus.verify()
    return corpus


class Gallery:
    """Images and sentences of a gallery: ``gallery[i]`` is a dict of metadata with ``path``, the image's file."""

    def __init__(self, path: Path, rows: list[JsonObject]):
        self.path = path
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> JsonObject:
        return self.rows[index]

    def of(self, split: str) -> list[JsonObject]:
        """Rows of one split, ``seen`` or ``new``."""
        return [row for row in self.rows if row["split"] == split]


def open_gallery(path: str | Path) -> Gallery:
    """Open a gallery folder; raises DataError for missing or damaged metadata and for missing images."""
    path = Path(path)
    metadata = path / METADATA
    try:
        lines = metadata.read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} contains no {METADATA}, so it is not a gallery. Check the path.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{metadata} cannot be read ({error}).") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row = {key: row[key] for key in GALLERY_KEYS}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{metadata}, line {number} is damaged ({error}). Restore the file.") from None
        row["path"] = path / row["file_name"]
        if not row["path"].is_file():
            raise DataError(f"{metadata}, line {number}: image {row['file_name']} is missing. Restore the folder.")
        rows.append(row)
    if not rows:
        raise DataError(f"{metadata} is empty. Restore the file.")
    return Gallery(path, rows)
