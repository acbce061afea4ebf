"""Embed a folder of images into an index: only new or changed images, in shards, with one process or several.

An update divides the images that are neither in the index nor in its journal into shards, embeds the shards, records
each finished shard in the journal, and merges everything into the next generation. An interrupted update continues
after the last finished shard. The shards and batches do not depend on the number of processes or on interruptions: on
the same kind of machine, the vectors are equal bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ashnets.data.folders import printable, reason
from ashnets.device import own_device
from ashnets.errors import ConfigurationError, DataError, WeightsError
from ashnets.files import JsonObject
from ashnets.hub.loading import from_pretrained
from ashnets.image_search.collection import Found, Read, Stamp, read_image, refuse_url, scan
from ashnets.image_search.identity import ModelIdentity, identify
from ashnets.image_search.journal import Journal
from ashnets.image_search.ranks import Ranks
from ashnets.image_search.store import (
    HEAD,
    LOCK,
    Contents,
    Row,
    StoredIndex,
    check_folder,
    clear_journal,
    index_folder,
    read_head,
    tidy,
    write_generation,
)
from ashnets.processor import AshNetsProcessor
from ashnets.words import command

BATCH = 64
SHARD = 1024  # at most this many images are embedded again after an interruption


@dataclass(frozen=True)
class _Plan:
    """What the first rank found and planned.

    Attributes:
        files: path → stamp, of all images, including those of the index that cannot be read now.
        found: contents of the folder.
        base: the current index.
        shards: paths to embed.
    """

    files: dict[str, Stamp]
    found: Found
    base: Contents
    shards: list[list[str]]


def index(
    images: str | os.PathLike,
    name: str | None = None,
    model: str | os.PathLike = "ashnets-tiny",
    *,
    rebuild: bool = False,
    progress: bool = True,
    batch: int = BATCH,
    shard: int = SHARD,
    device: str | torch.device | None = None,
) -> JsonObject:
    """Create or update the index of a folder of images.

        ashnets.index("my-images", "holidays")

    An image whose size and modification time are unchanged is not read. An image whose content is already indexed, as
    after a move, is not embedded again. Unreadable images are left out, reported, and tried again at each update.
    Entries of a subfolder that cannot be read now stay in the index.
    Under torchrun, each process embeds its share; all processes must see the folder of the index.

    Args:
        images: a folder; its subfolders belong to it.
        name: of the index in the cache of ashnets, or a path for its folder; by default a name from these images and
            this model.
        model: a name, folder or Hub repository with a retrieval head.
        rebuild: discard the existing index.
        batch, shard: images per batch, and per entry of the journal.
        device: of the model; a GPU where there is one.

    Returns:
        ``{"name", "folder", "model", "images", "embedded", "removed", "unreadable": {path: why}, "kept unseen",
        "passed over": {suffix: number}, "seconds"}``; ``embedded`` counts what the model embedded, including the shards
        of an interrupted update; ``kept unseen`` counts entries kept although their folder cannot be read;
        ``passed over`` counts files without an image suffix.

    Raises:
        DataError: no such folder, no images, a damaged index, or another process uses the index.
        ConfigurationError: the index is of another folder, or ``name`` is a folder that holds other things.
        WeightsError: the index was made by another model, or the model has no weights.
    """
    start = time.perf_counter()
    refuse_url(images)
    root, identity = Path(images).resolve(), identify(model)
    name = default_name(root, identity) if name is None else name
    folder = index_folder(name)
    with Ranks() as ranks, _alone(folder, root) if ranks.first else contextlib.nullcontext():
        plan = ranks.agree(lambda: _plan(folder, root, identity, shard, rebuild))
        journal = _journal(folder, plan.base)
        mine = plan.shards[ranks.number :: ranks.count]
        if mine:
            known = _known(folder, plan.base)
            embedder = Embedder(model, batch, own_device(device))
            label = "embedding" if ranks.count == 1 else f"embedding, 1 of {ranks.count} processes"
            silent = None if progress and ranks.first else True
            with tqdm(total=sum(map(len, mine)), desc=label, unit="image", leave=False, disable=silent) as bar:
                for paths in mine:
                    rows, vectors, faults, made = embedder(root, paths, plan.files, known, bar)
                    journal.write(rows, vectors, faults, made)
        ranks.wait()
        result = ranks.agree(lambda: _merge(folder, root, plan, journal))
    about = {"name": name, "folder": str(folder), "model": identity.name}
    return {**about, **result, "seconds": round(time.perf_counter() - start, 2)}


def default_name(root: Path, identity: ModelIdentity) -> str:
    """The name of the index of a folder by a model: the folder's, and a few digits for its path and the weights."""
    key = f"{root}\0{identity.digest}".encode(errors="surrogateescape")
    return f"{printable(root.name) or 'images'}-{hashlib.sha256(key).hexdigest()[:8]}"


class Embedder:
    """Images to vectors by one model."""

    def __init__(self, model: str | os.PathLike, batch: int, device: str | torch.device) -> None:
        self.model = from_pretrained(model, task="retrieval").to(device)
        self.processor = AshNetsProcessor.from_pretrained(model)
        self.batch = batch

    def __call__(
        self, root: Path, paths: list[str], files: dict[str, Stamp], known: dict[str, np.ndarray], bar: tqdm
    ) -> tuple[list[Row], np.ndarray, dict[str, tuple[Stamp, str]], int]:
        """One shard: rows, their vectors (n, D), unreadable images, and how many images the model embedded."""
        rows: list[Row] = []
        vectors: list[np.ndarray] = []
        faults: dict[str, tuple[Stamp, str]] = {}
        made = 0
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter's lock
            for start in range(0, len(paths), self.batch):
                part = paths[start : start + self.batch]
                read = list(pool.map(lambda path: read_image(root / path, self.processor, known), part))
                fresh = [one for one in read if one.pixels is not None]
                embeds = iter(self._embed(fresh))
                made += len(fresh)
                for path, one in zip(part, read, strict=True):
                    if one.fault:
                        faults[path] = (files[path], one.fault)
                        continue
                    rows.append(Row(path, files[path], one.sha256))
                    vectors.append(next(embeds) if one.known is None else one.known)
                bar.update(len(part))
        width = self.model.config.projection_size
        return rows, np.stack(vectors) if vectors else np.empty((0, width), np.float32), faults, made

    @torch.inference_mode()
    def _embed(self, read: list[Read]) -> np.ndarray:
        if not read:
            return np.empty((0, self.model.config.projection_size), np.float32)
        pixels = torch.cat([one.pixels for one in read if one.pixels is not None]).to(self.model.device)
        embeds, _ = self.model.encode_image(pixels, image_keys=[one.key for one in read])
        if not bool(torch.isfinite(embeds).all()):
            raise WeightsError("the model's embeddings contain NaN or infinity: its weights are damaged")
        return embeds.float().cpu().numpy()


def _plan(folder: Path, root: Path, identity: ModelIdentity, size: int, rebuild: bool) -> _Plan:
    found = scan(root)
    base = Contents(str(root), identity)
    if rebuild and (folder / HEAD).exists():  # else a rebuilding that was killed goes on
        (folder / HEAD).unlink()
        tidy(folder, keep=set())
    elif (folder / HEAD).exists():
        base = StoredIndex(folder).contents
        check_model(base.model, identity, folder, base.root)
        _check_root(base.root, root, folder)
    done = {row.path: row.stamp for row in base.rows}
    unseen = {path: stamp for path, stamp in done.items() if found.hides(path)}
    files = dict(sorted({**unseen, **found.images}.items()))
    for shard in _journal(folder, base):
        done.update(_still(files, {row.path: row.stamp for row in shard.rows}))
        done.update(_still(files, {path: stamp for path, (stamp, _) in shard.faults.items()}))
    pending = [path for path, stamp in files.items() if done.get(path) != stamp]
    return _Plan(files, found, base, [pending[i : i + size] for i in range(0, len(pending), size)])


def _still(files: dict[str, Stamp], stamps: dict[str, Stamp]) -> dict[str, Stamp]:
    """The stamps of the journal that still match the files."""
    return {path: stamp for path, stamp in stamps.items() if files.get(path) == stamp}


def _journal(folder: Path, base: Contents) -> Journal:
    return Journal(folder, f"{base.model.digest} {base.generation}")


def _known(folder: Path, base: Contents) -> dict[str, np.ndarray]:
    """SHA-256 → vector, of the current index."""
    if not base.rows:
        return {}
    return dict(zip((row.sha256 for row in base.rows), StoredIndex(folder).vectors(), strict=True))


def _merge(folder: Path, root: Path, plan: _Plan, journal: Journal) -> JsonObject:
    """Write the next generation if it differs from the current index; returns what has changed."""
    parts: list[np.ndarray] = []
    places: dict[str, tuple[Row, int, int]] = {}  # path → row, part and place in it
    if plan.base.rows:
        parts.append(StoredIndex(folder).vectors())
        places = {row.path: (row, 0, i) for i, row in enumerate(plan.base.rows)}
    unreadable, made = dict(plan.found.faults), 0
    for shard in journal:
        made += shard.embedded
        same = ((i, row) for i, row in enumerate(shard.rows) if plan.files.get(row.path) == row.stamp)
        places.update({row.path: (row, len(parts), i) for i, row in same})
        parts.append(shard.vectors())
        unreadable.update({path: why for path, (stamp, why) in shard.faults.items() if plan.files.get(path) == stamp})
    kept = [places[path] for path, stamp in plan.files.items() if path in places and places[path][0].stamp == stamp]
    if not kept:
        clear_journal(folder)  # else the next update would take the faults from there and try no image again
        why = next(iter(unreadable.values()))
        raise DataError(f"none of the {len(plan.files)} images of {root} can be read, for example: {why}")
    rows = [row for row, _, _ in kept]
    if (rows, unreadable, str(root)) != (plan.base.rows, plan.base.unreadable, plan.base.root):
        vectors = np.empty((len(kept), parts[0].shape[1]), np.float32)
        first: dict[str, int] = {}  # equal files have one vector, though rounding may differ from batch to batch
        for i, (row, part, place) in enumerate(kept):
            earlier = first.setdefault(row.sha256, i)
            vectors[i] = parts[part][place] if earlier == i else vectors[earlier]
        contents = Contents(str(root), plan.base.model, rows, unreadable, plan.base.generation + 1)
        write_generation(folder, contents, vectors)
    else:
        tidy(folder, {HEAD, *(read_head(folder)[part]["file"] for part in ("images", "vectors"))})
    gone = {row.path for row in plan.base.rows} - {row.path for row in rows}
    return {
        "images": len(rows),
        "embedded": made,
        "removed": len(gone),
        "unreadable": unreadable,
        "kept unseen": len(plan.files) - len(plan.found.images),
        "passed over": plan.found.passed_over,
    }


def check_model(stored: ModelIdentity, wanted: ModelIdentity, folder: Path, root: str) -> None:
    """Refuse an index whose vectors are not those of ``wanted``.

    Raises:
        WeightsError: with what differs and the remedy.
    """
    if stored.digest != wanted.digest:
        names = stored.name if stored.name == wanted.name else f"{stored.name}, not by {wanted.name}"
        raise WeightsError(
            f"the index {folder} was made by {names} ({stored.difference(wanted)}): vectors of two models cannot be "
            f"compared. Search with the model that made the index, or make the index again: "
            f"{command('index', root, '--name', folder, '--model', wanted.name, '--rebuild')}"
        )


def _check_root(stored: str, root: Path, folder: Path) -> None:
    if stored != str(root) and Path(stored).is_dir():  # a folder that has moved keeps its index
        raise ConfigurationError(
            f"the index {folder} contains the images of {stored}, not of {root}: give another --name, or --rebuild"
        )


@contextlib.contextmanager
def _alone(folder: Path, root: Path) -> Iterator[None]:
    """Hold the lock of the index; the system releases it when the process ends.

    Raises:
        DataError: another process holds it, or the folder of images does not exist.
        ConfigurationError: the index's folder contains other things.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give one with images in it")
    check_folder(folder)
    try:
        Path(os.path.realpath(folder)).mkdir(parents=True, exist_ok=True)  # a link may point to what is not there yet
    except OSError as error:
        raise DataError(
            f"{printable(folder)} cannot be created ({reason(error)}): set --name to the path of a folder, "
            "or ASHNETS_CACHE to a folder with write permission"
        ) from None
    with open(folder / LOCK, "ab") as held:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"another process is using the index {folder}: wait until it has finished") from None
        yield
