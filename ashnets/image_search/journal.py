"""The journal of an update: one file for each finished shard of images, written atomically.

A shard is a safetensors file: the vectors, and in its header the images, the unreadable files, and the basis (model
and generation). Shards of another model or generation are ignored: their update has ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ashnets.files import write_atomically
from ashnets.image_search.collection import Stamp
from ashnets.image_search.store import FINISHED, Row


@dataclass(frozen=True)
class Shard:
    """The result of embedding some images.

    Attributes:
        rows: images with vectors.
        faults: path → (stamp, why it cannot be read).
        embedded: how many vectors the model made; the others were known from a file of the same content.
        file: contains the vectors.
    """

    rows: list[Row]
    faults: Mapping[str, tuple[Stamp, str]]
    embedded: int
    file: Path

    def vectors(self) -> np.ndarray:
        """(len(rows), D)."""
        with safe_open(self.file, framework="np") as opened:
            return opened.get_tensor("vectors")


class Journal:
    """Finished shards in the folder of an index.

    Args:
        basis: a text for the model and the generation that an update starts from.
    """

    def __init__(self, index: Path, basis: str) -> None:
        self._folder, self._basis = index / FINISHED, basis

    def write(
        self, rows: list[Row], vectors: np.ndarray, faults: Mapping[str, tuple[Stamp, str]], embedded: int
    ) -> None:
        """Record a shard as finished."""
        names = "\n".join([row.path for row in rows] + list(faults))
        stem = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:24]
        metadata = {
            "basis": self._basis,
            "rows": json.dumps([[row.path, *row.stamp, row.sha256] for row in rows]),
            "faults": json.dumps([[path, *stamp, fault] for path, (stamp, fault) in faults.items()]),
            "embedded": str(embedded),
        }
        write_atomically(self._folder / f"{stem}.safetensors", save({"vectors": vectors}, metadata))

    def __iter__(self) -> Iterator[Shard]:
        """The shards of this basis, in an order that does not depend on when they were written."""
        for file in sorted(self._folder.glob("*.safetensors")):
            try:
                shard = self._shard(file)
            except (SafetensorError, OSError, KeyError, TypeError, ValueError):  # after a full disk, say: embed again
                continue
            if shard is not None:
                yield shard

    def _shard(self, file: Path) -> Shard | None:
        with safe_open(file, framework="np") as opened:
            found = opened.metadata() or {}
        if found.get("basis") != self._basis:
            return None
        rows = [Row(path, Stamp(size, changed), sha) for path, size, changed, sha in json.loads(found["rows"])]
        faults = {path: (Stamp(size, at), fault) for path, size, at, fault in json.loads(found["faults"])}
        return Shard(rows, faults, int(found["embedded"]), file)
