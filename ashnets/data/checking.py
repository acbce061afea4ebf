"""Looking a source through before training: what it holds, and every picture decoded once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ashnets.data.pairs import Pairs
from ashnets.data.sources import Source, open_source
from ashnets.errors import DataError

SHOWN = 20
_SIDE = 8  # the pictures are decoded whole; what becomes of them does not matter
_BLOCK = 1024


def check_source(path: str | os.PathLike, progress: bool = True) -> dict[str, Any]:
    """Open a source and decode every picture.

    Returns:
        ``{"path", "kind", "splits": {name: {"pictures", "captions per picture", "concepts"}}, "left out", "corrupt",
        "reasons"}``; ``concepts`` counts pictures without a concept as one each, ``left out`` the pictures that the
        folder's metadata does not name; ``reasons`` are those of the first 20 pictures that cannot be decoded.

    Raises:
        DataError: as `open_source`.
    """
    source = open_source(Path(path))
    reasons = [reason for reason in _failures(source, progress) if reason]
    return {
        "path": str(path),
        "kind": source.kind,
        "splits": {name: _counts(source.split(name)) for name in source.splits},
        "left out": source.left_out,
        "corrupt": len(reasons),
        "reasons": reasons[:SHOWN],
    }


def _counts(rows: pa.Table) -> dict[str, Any]:
    concepts = rows["concept"]
    captions = pc.sum(pc.list_value_length(rows["captions"])).as_py()
    return {
        "pictures": rows.num_rows,
        "captions per picture": round(captions / rows.num_rows, 2),
        "concepts": len(concepts.drop_null().unique()) + concepts.null_count,
    }


def _failures(source: Source, progress: bool) -> Iterator[str | None]:
    """For each picture, why it cannot be decoded, or None. Pillow decodes outside the interpreter's lock."""
    pairs = Pairs(source, source.splits, _SIDE)

    def failure(index: int) -> str | None:
        try:
            pairs.decode(index)
        except DataError as error:
            return str(error)
        return None

    bar = tqdm(total=len(pairs), desc="decoding pictures", unit="picture", disable=not progress or None)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(pairs), _BLOCK):
            for reason in pool.map(failure, range(start, min(start + _BLOCK, len(pairs)))):
                bar.update()
                yield reason
