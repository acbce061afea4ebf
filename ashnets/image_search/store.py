"""An index on disk: unit vectors of images with their paths, searched exactly by inner product.

    index.json           current generation, model identity, folder of images, unreadable files, SHA-256 of all three
    vectors-G.faiss      a flat FAISS index, or vectors-G.safetensors where FAISS is not installed
    images-G.jsonl     one row per line: path within the folder, size, modification time, SHA-256
    finished/            the journal: shards that an update has embedded but not merged yet
    lock                 locked by the process that updates the index

The files of a new generation are written first. Then ``index.json`` is replaced atomically, and the old files are
deleted. An interrupted process leaves either the old or the new generation, and the finished shards. Only files with
exactly these names, and their unfinished parts ``.NAME.PROCESS.part``, are ever deleted.

Loading compares the digests, so that damage is an error and never a wrong answer. That is one more pass over the files,
some seconds for a gigabyte. Format 2 has no digests and is still read; the next change of the index writes format 3.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ashnets.data.folders import printable
from ashnets.data.similar import has_faiss, nearest
from ashnets.digests import sha256_of
from ashnets.errors import ConfigurationError, DataError, MissingExtraError
from ashnets.files import JsonObject, cache_folder, write_atomically
from ashnets.image_search.collection import Stamp
from ashnets.image_search.identity import ModelIdentity
from ashnets.words import command, install

SCHEMA = 3
WITHOUT_DIGESTS = 2
HEAD = "index.json"
FINISHED = "finished"
LOCK = "lock"

_HEAD = {
    "generation": int,
    "count": int,
    "dimensions": int,
    "root": str,
    "model": {"name": str, "files": dict},
    "images": {"file": str, "bytes": int},
    "vectors": {"file": str, "bytes": int},
    "unreadable": dict,
}
_GENERATION = r"(images-\d+\.jsonl|vectors-\d+\.(faiss|safetensors))"
_REMOVABLE = re.compile(rf"{_GENERATION}|\.(index\.json|{_GENERATION})\.[0-9a-f]+\.part", re.ASCII)
_NOTE = re.compile(r"[0-9a-f]{24}\.safetensors|\.[0-9a-f]{24}\.safetensors\.[0-9a-f]+\.part", re.ASCII)


@dataclass(frozen=True)
class Row:
    """An image of an index: path within its folder, stamp and SHA-256 of the file."""

    path: str
    stamp: Stamp
    sha256: str


@dataclass(frozen=True)
class Contents:
    """One generation.

    Attributes:
        root: the images' folder.
        model: made the vectors.
        rows: sorted by path.
        unreadable: path → reason, at the last update.
        generation: 0 before the first update.
    """

    root: str
    model: ModelIdentity
    rows: list[Row] = field(default_factory=list)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0


class StoredIndex:
    """An index, loaded from its folder.

    Raises:
        DataError: there is no index, or it is damaged or of another version.
        MissingExtraError: it was written with FAISS, which is not installed.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        for attempt in (1, 2, 3):
            head = read_head(self.folder)
            try:
                self.contents, self._vectors = self._read(head)
                return
            except FileNotFoundError as error:  # an update may have replaced what the head named a moment ago
                if attempt == 3:
                    raise DataError(f"{error.filename} is missing: {_rebuild(head)}") from None

    def __len__(self) -> int:
        return len(self.contents.rows)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Inner products and rows of the k best of each query, (Q, k) both, best first; at most all rows.

        Equal products are in the order of the rows (:func:`ashnets.data.similar.nearest`).
        """
        k = min(k, len(self))
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if isinstance(self._vectors, np.ndarray):
            return nearest(queries, self._vectors, k)
        faiss = importlib.import_module("faiss")
        count, width = self._vectors.ntotal, self._vectors.d
        own = faiss.rev_swig_ptr(self._vectors.get_xb(), count * width)  # no copy: it lives as long as the index
        return nearest(queries, own.reshape(count, width), k, self._vectors)

    def vectors(self) -> np.ndarray:
        """All vectors, (n, D)."""
        if isinstance(self._vectors, np.ndarray):
            return self._vectors
        return self._vectors.reconstruct_n(0, self._vectors.ntotal)

    def _read(self, head: JsonObject) -> tuple[Contents, Any]:
        listing, file = (self.folder / head[part]["file"] for part in ("images", "vectors"))
        for path, about in ((listing, head["images"]), (file, head["vectors"])):
            if path.stat().st_size != about["bytes"]:
                size = f"{path.stat().st_size} bytes instead of {about['bytes']}"
                raise DataError(f"{path} is damaged: {size}; {_rebuild(head)}")
            if "sha256" in about and sha256_of(path) != about["sha256"]:
                raise DataError(f"{path} is damaged: it does not have the SHA-256 of its index; {_rebuild(head)}")
        try:
            rows = [_row(line) for line in listing.read_text(encoding="utf-8").split("\n")[:-1]]
        except (ValueError, TypeError) as error:
            raise DataError(f"{listing} is damaged ({error}); {_rebuild(head)}") from None
        vectors = _read_vectors(file, head)
        count, width = vectors.shape if isinstance(vectors, np.ndarray) else (vectors.ntotal, vectors.d)
        if not (len(rows) == count == head["count"] and width == head["dimensions"]):
            found = f"{len(rows)} images, {count} vectors of {width} numbers"
            raise DataError(f"{self.folder} is damaged: {found}; {_rebuild(head)}")
        model = ModelIdentity(head["model"]["name"], head["model"]["files"])
        return Contents(head["root"], model, rows, head["unreadable"], head["generation"]), vectors


def is_index(folder: str | os.PathLike) -> bool:
    """Whether a folder contains an index."""
    try:
        head = json.loads((Path(folder) / HEAD).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and {"schema_version", "generation"} <= head.keys()


def check_folder(folder: Path) -> None:
    """Refuse a folder with other contents.

    Accepted: a missing or empty folder, an index, and the files of an interrupted first update.

    Raises:
        ConfigurationError: it is not an index and contains other files or folders.
    """
    if not folder.is_dir() or is_index(folder):
        return
    lock, finished = folder / LOCK, folder / FINISHED
    strange = _split(folder, _REMOVABLE)[1]
    strange -= {lock, folder / HEAD} if lock in strange else set()  # without our lock, an index.json is not ours
    if finished in strange and finished.is_dir() and not finished.is_symlink():
        strange = strange - {finished} | _split(finished, _NOTE)[1]
    if strange:
        name = min(strange).relative_to(folder)
        raise ConfigurationError(
            f"{printable(folder)} is not an index and contains {printable(name)!r}, which does not belong to an index: "
            "give another --name, a new or an empty folder"
        )


def read_head(folder: Path) -> JsonObject:
    """The contents of ``index.json``. Raises DataError if it is missing, damaged or of another version."""
    path = folder / HEAD
    try:
        data = path.read_bytes()
        head = json.loads(data)
    except FileNotFoundError:
        raise DataError(f"{folder} contains no index: `ashnets index IMAGES --name NAME` makes one") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); index the images again with --rebuild") from None
    if not isinstance(head, dict) or head.get("schema_version") not in (WITHOUT_DIGESTS, SCHEMA):
        raise DataError(
            f"{path} was written by another version of ashnets (this one reads format {SCHEMA}); index the images "
            "again with --rebuild"
        )
    digest = head.pop("sha256", None)  # a single damaged byte cannot make format 3 look like format 2
    if (digest is not None or head["schema_version"] == SCHEMA) and data != _head_bytes(head):
        raise DataError(f"{path} is damaged: it does not have its own SHA-256; index the images again with --rebuild")
    if wrong := _misfit(head, _HEAD):
        raise DataError(f"{path} is damaged ({wrong}); index the images again with --rebuild")
    return head


def _head_bytes(head: JsonObject) -> bytes:
    """``index.json``, with the digest of all its other bytes."""
    text = json.dumps(head, indent=2)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**head, "sha256": digest}, indent=2).encode()


def _misfit(found: JsonObject, wanted: Mapping[str, Any], place: str = "") -> str:
    """What is missing, or of another type than ``wanted``; empty if nothing is."""
    for key, kind in wanted.items():
        value, inner = found.get(key), kind if isinstance(kind, dict) else {}
        if type(value) is not (dict if inner else kind):
            return f"{place}{key} is {'missing' if key not in found else repr(value)[:80]}"
        if wrong := _misfit(value, inner, f"{key}."):
            return wrong
    return ""


def _row(line: str) -> Row:
    path, size, changed, sha = json.loads(line)
    if [type(one) for one in (path, size, changed, sha)] != [str, int, int, str]:
        raise ValueError(f"{line[:80]} is not path, size, time and SHA-256")
    return Row(path, Stamp(size, changed), sha)


def index_folder(name: str) -> Path:
    """The folder of an index: in the cache of ashnets, or ``name`` itself if it contains a path separator.

    Raises:
        ConfigurationError: not a valid name for a folder.
    """
    if os.sep in name:
        return Path(name)
    if name in ("", ".", "..") or "\0" in name:
        raise ConfigurationError(f"{name!r} is not a valid name for an index: give a word, or the path of a folder")
    return cache_folder("indexes") / name


def write_generation(folder: Path, contents: Contents, vectors: np.ndarray) -> None:
    """Write the vectors (n, D) and rows of ``contents`` as the current generation, and remove older ones."""
    listing = folder / f"images-{contents.generation}.jsonl"
    # ASCII, because names need not be Unicode: JSON's escapes carry what UTF-8 cannot
    lines = (json.dumps([row.path, *row.stamp, row.sha256]) + "\n" for row in contents.rows)
    write_atomically(listing, "".join(lines).encode())
    file = _write_vectors(folder / f"vectors-{contents.generation}", np.ascontiguousarray(vectors, dtype=np.float32))
    write_atomically(
        folder / HEAD,
        _head_bytes(
            {
                "schema_version": SCHEMA,
                "generation": contents.generation,
                "count": len(contents.rows),
                "dimensions": vectors.shape[1],
                "root": contents.root,
                "model": {"name": contents.model.name, "files": dict(contents.model.files)},
                "images": _about(listing),
                "vectors": _about(file),
                "unreadable": dict(contents.unreadable),
            }
        ),
    )
    tidy(folder, {HEAD, listing.name, file.name})


def _about(file: Path) -> JsonObject:
    return {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}


def tidy(folder: Path, keep: set[str]) -> None:
    """Remove the files of other generations, unfinished files and the journal, and no other files."""
    clear_journal(folder)
    for path in _split(folder, _REMOVABLE)[0]:
        if path.name not in keep:
            path.unlink(missing_ok=True)


def clear_journal(folder: Path) -> None:
    """Remove the files of finished shards."""
    finished = folder / FINISHED
    with contextlib.suppress(OSError):  # files that stay do no harm: those of another generation are ignored
        for path in _split(finished, _NOTE)[0]:
            path.unlink(missing_ok=True)
        finished.rmdir()


def _split(folder: Path, names: re.Pattern[str]) -> tuple[set[Path], set[Path]]:
    """The regular files of a folder whose names match, and all other entries."""
    own: set[Path] = set()
    others: set[Path] = set()
    with os.scandir(folder) as entries:
        for one in entries:
            found = own if names.fullmatch(one.name) and one.is_file(follow_symlinks=False) else others
            found.add(folder / one.name)
    return own, others


def _read_vectors(file: Path, head: JsonObject) -> Any:
    if file.suffix == ".faiss":
        if not has_faiss():
            raise MissingExtraError(
                f"{file} was written by FAISS, which is not installed: {install('cpu')}; or index again"
            )
        faiss = importlib.import_module("faiss")
        try:
            with open(file, "rb") as stream:  # FAISS itself opens only paths in UTF-8
                return faiss.read_index(faiss.PyCallbackIOReader(stream.read))
        except (RuntimeError, MemoryError) as error:
            raise DataError(f"{file} is damaged ({str(error)[:80]}); {_rebuild(head)}") from None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        vectors = load_file(file)["vectors"]
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ValueError(f"vectors of shape {vectors.shape}, {vectors.dtype}")
        return vectors
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{file} is damaged ({str(error)[:80]}); {_rebuild(head)}") from None


def _write_vectors(stem: Path, vectors: np.ndarray) -> Path:
    if not has_faiss():
        from safetensors.numpy import save

        return write_atomically(stem.with_name(f"{stem.name}.safetensors"), save({"vectors": vectors}))
    faiss = importlib.import_module("faiss")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    file = stem.with_name(f"{stem.name}.faiss")
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as stream:  # a full disk is then an OSError; serialize_index takes twice the memory
            faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return file


def _rebuild(head: JsonObject) -> str:
    return f"make the index again: {command('index', head['root'], '--name', 'NAME', '--rebuild')}"
