"""Parquet files as rows. The images themselves stay in the files: see ``packed``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from ashnets.data.folders import reason
from ashnets.data.sources.rows import (
    CAPTIONS,
    PATHS,
    SPLIT_WORDS,
    TEXTS,
    Missing,
    SourceRow,
    clean_row,
    path_inside,
    split_name,
)
from ashnets.errors import DataError
from ashnets.files import JsonObject

IMAGE = "image"
_SHARD = re.compile(r"[-_.](part[-_.]?)?\d+([-_.]of[-_.]\d+)?([-_.][0-9a-f]{8,})?$")


def split_of_file(file: str) -> str:
    """The split at the start of the file's name, otherwise of its folder's; ``train`` if there is none.

    ``train-00000-of-00002.parquet`` → train, ``validation.parquet`` → valid, ``test-seen.parquet`` → test-seen.
    """
    path = PurePosixPath(file)
    for name in (path.stem, path.parent.name):
        bare = _SHARD.sub("", name)
        if re.split(r"[-_. ]", bare)[0].lower() in SPLIT_WORDS:
            return split_name(bare)
    return "train"


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file, its end read and checked. Raises DataError."""
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)  # the default loads the whole file into memory
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Download or build it again.") from None
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a parquet file that cannot be read."""
    return DataError(f"{path} is damaged or cut short ({reason(error)}). Download or build it again.")


def image_column(path: Path, schema: pa.Schema) -> str | None:
    """The column to read for the encoded images, or None where the file only names their paths."""
    if IMAGE in schema.names:
        kind = schema.field(IMAGE).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return IMAGE
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return f"{IMAGE}.bytes"
        raise DataError(f"{path}: column {IMAGE!r} contains {kind}; it must contain encoded images (bytes).")
    if not set(schema.names) & set(PATHS):
        raise DataError(
            f"{path}: no column {IMAGE!r}, {' or '.join(map(repr, PATHS))}; it has {', '.join(schema.names)}."
        )
    return None


def read_parquet(root: Path, files: dict[str, str], name_comes_first: bool = False) -> Iterator[SourceRow]:
    """Rows of ``files`` (paths relative to ``root`` → split where the rows name none); see `clean_row`."""
    missing = Missing(root)
    for file, split in files.items():
        path = root / file
        parquet = open_parquet(path)
        names = parquet.schema_arrow.names
        if not set(names) & {*CAPTIONS, "name"}:
            raise DataError(f"{path}: no column {', '.join(map(repr, CAPTIONS))}; it has {', '.join(names)}.")
        inside = image_column(path, parquet.schema_arrow) is not None
        wanted = [name for name in (*TEXTS, *CAPTIONS, *(() if inside else PATHS)) if name in names]
        part = PurePosixPath(file).parent
        for number, raw in enumerate(_raw_rows(path, parquet, wanted)):
            where = f"{path}, row {number}"
            place: JsonObject = {"file": file, "row": number, "image_id": f"{file}#{number}"}
            if not inside:
                given = next((raw[key] for key in PATHS if raw.get(key) is not None), None)
                image = (part / path_inside(given, where)).as_posix()
                missing.look(image, f"{file}, row {number}")
                place = {"file": image, "row": -1, "image_id": image}
            yield clean_row(raw, where, **place, split=split, name_comes_first=name_comes_first)
    missing.complain()


def _raw_rows(path: Path, parquet: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, object]]:
    try:
        for batch in parquet.iter_batches(4096, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise damaged(path, error) from None
