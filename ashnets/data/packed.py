"""Random access to the encoded images of a parquet file.

A parquet file can only be read one row group at a time, so reading one image would read hundreds. The image column is
copied once, unchanged, to an uncompressed Arrow file in the cache, which processes memory-map and share.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub.utils import WeakFileLock
from tqdm import tqdm

from ashnets.data.sources.parquet import damaged, image_column, open_parquet
from ashnets.errors import DataError
from ashnets.files import cache_folder

_IMAGES = pa.schema([("image", pa.large_binary())])
_BATCH = 64  # images that are copied at a time
_KEPT_S = 30 * 24 * 3600  # since the last use


def pack(path: Path) -> Path:
    """The Arrow file of the parquet file ``path``; created unless the cache has it for this size and modification time.

    Concurrent processes wait for the one that creates it. Creating a file removes files not used for 30 days.
    Raises DataError for a damaged file or a full disk.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Download or build it again.") from None
    folder = cache_folder("images")
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    packed = folder / f"{name}-{state.st_size}-{state.st_mtime_ns}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(folder / f"{name}.lock"):
            if packed.is_file():
                os.utime(packed)
            else:
                for old in [*folder.glob("*.arrow"), *folder.glob("*.part")]:
                    with contextlib.suppress(FileNotFoundError):  # another process has just renamed or removed it
                        if old.name.startswith(name) or time.time() - old.stat().st_mtime > _KEPT_S:
                            old.unlink()
                aside = packed.with_suffix(".part")
                try:
                    _copy(path, aside)
                    aside.replace(packed)
                finally:
                    aside.unlink(missing_ok=True)
    except OSError as error:
        if packed.is_file():  # a read-only cache works too
            return packed
        raise DataError(
            f"{path} cannot be unpacked to {folder} ({error}); it needs as much space as its images. Free disk "
            "space, or set ASHNETS_CACHE to a folder on another disk."
        ) from None
    return packed


def _copy(path: Path, target: Path) -> None:
    parquet = open_parquet(path)
    column = image_column(path, parquet.schema_arrow)
    bar = tqdm(
        total=parquet.metadata.num_rows, desc=f"unpacking {path.name}", unit="image", delay=3, leave=False, disable=None
    )
    with bar, pa.OSFile(os.fspath(target), "wb") as sink, pa.ipc.new_file(sink, _IMAGES) as writer:
        batches = parquet.iter_batches(_BATCH, columns=[column])
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise damaged(path, error) from None
            if batch is None:
                break
            images = batch.column(0)
            if pa.types.is_struct(images.type):
                images = pc.struct_field(images, "bytes")
            writer.write_batch(pa.record_batch([images.cast(pa.large_binary())], schema=_IMAGES))
            bar.update(len(images))


class PackedImages:
    """``images[row]`` is the encoded image of a row, or None where the row contains none."""

    def __init__(self, path: Path) -> None:
        self._map = pa.memory_map(os.fspath(pack(path)))
        self._column = pa.ipc.open_file(self._map).read_all().column(0)

    def __getitem__(self, row: int) -> pa.Buffer | None:
        return self._column[row].as_buffer()
