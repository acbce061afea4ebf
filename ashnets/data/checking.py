"""Check data before training: decode each of your own images once; read all files of a benchmark or a joined corpus."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ashnets.data.benchmarks import Benchmark, Captioned, open_benchmark
from ashnets.data.benchmarks.faults import BROKEN, MISSING, REPEATED, Faults, Place
from ashnets.data.folders import listed, printable
from ashnets.data.images import OTHER_FORMATS
from ashnets.data.joined import open_joined
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.errors import DataError
from ashnets.files import JsonObject

SHOWN = 20
KINDS = (BROKEN, REPEATED, MISSING)
_SIDE = 8  # not used: the images are decoded in their own size
_BLOCK = 1024


def check_source(path: str | os.PathLike, progress: bool = True) -> JsonObject:
    """Open a source and decode every image.

    Returns:
        ``{"path", "kind", "splits": {name: {"images", "captions per image", "concepts"}}, "left out", "corrupt",
        "unreadable", "passed over", "duplicates", "notes", "reasons"}``; ``concepts`` counts images without a concept
        as one each, ``left out`` the images that the folder's metadata does not name, ``unreadable`` folders that
        cannot be listed and entries that are not files, ``passed over`` other files by their suffix; ``duplicates``
        is that of `repeated_pixels`; ``notes`` are sentences about duplicates, the first 20, and about images in
        formats that are not read; ``reasons`` are those of the first 20 unreadable or undecodable files.

    Raises:
        DataError: as `open_source`.
    """
    source = open_source(Path(path))
    pairs = Pairs(source, source.splits, _SIDE)
    decoded = list(_decoded(pairs, progress))
    reasons = [one for one in decoded if isinstance(one, str)]
    splits = [name for name in source.splits for _ in range(source.split(name).num_rows)]
    duplicates, notes = repeated_pixels(pairs, splits, [one if isinstance(one, bytes) else None for one in decoded])
    strange = {suffix: count for suffix, count in source.passed_over.items() if suffix in OTHER_FORMATS}
    if strange:
        notes.append(f"{listed(strange)}: images in formats that are not read; convert them to .jpg or .png")
    return {
        "path": str(path),
        "kind": source.kind,
        "splits": {name: _counts(source.split(name)) for name in source.splits},
        "left out": source.left_out,
        "corrupt": len(reasons),
        "unreadable": len(source.unreadable),
        "passed over": dict(source.passed_over),
        "duplicates": duplicates,
        "notes": notes,
        "reasons": [*source.unreadable, *reasons][:SHOWN],
    }


def check_benchmark(
    name: str, folder: str | os.PathLike, images: str | os.PathLike | None = None, progress: bool = True
) -> JsonObject:
    """Read every available split of a published benchmark, and check that every image exists; none is decoded.

    Args:
        name: a key of `ashnets.data.benchmarks.BENCHMARKS`.
        folder: contains the annotation files.
        images: contains the images, if they are in another folder.

    Returns:
        ``{"dataset", "path", "splits": {name: {"records", "published", "captions", "images", "missing images"}},
        "missing files": {name: {"splits", "from"}}, "images from", "faults": {"broken", "repeated", "missing
        images"}, "reasons"}``. ``published`` is the published number of records, or None;
        ``captions`` occurs only for captioned images; ``missing images`` counts files, not records; ``reasons`` are
        the first 20 faults, each with file and line or entry.

    Raises:
        ConfigurationError: no such benchmark.
        DataError: no such folder, or no split whose files are all there.
    """
    benchmark = open_benchmark(name, folder, images)
    absent = benchmark.missing_files()
    if not benchmark.splits:
        files, origins = (", ".join(dict.fromkeys(getattr(file, key) for file in absent)) for key in ("name", "origin"))
        raise DataError(
            f"{benchmark.folder} contains no complete split of {benchmark.title}. Missing: {files}. "
            f"Download them from {origins}."
        )
    faults = Faults(collect=True, shown=SHOWN)
    splits = _read_splits(benchmark, faults, progress)
    return {
        "dataset": benchmark.name,
        "path": str(benchmark.folder),
        "splits": splits,
        "missing files": {file.name: {"splits": list(file.splits), "from": file.origin} for file in absent},
        "images from": benchmark.image_origin,
        "faults": {kind: faults.counts[kind] for kind in KINDS},
        "reasons": faults.reasons,
    }


def check_joined(folders: Mapping[str, str], root: str | os.PathLike) -> JsonObject:
    """Read published sets as one corpus, and check that every image exists; none is decoded.

    Args:
        folders, root: as for `ashnets.data.joined.open_joined`.

    Returns:
        ``{"sources", "images": {set: n}, "in both", "left out": {why: n}, "splits": {name: {"images", "captions per
        image"}}, "notes", "faults": {"broken", "repeated", "missing images"}, "reasons"}``; ``reasons`` are the first
        20 faults, each with file and entry.

    Raises:
        ConfigurationError, DataError: as `open_joined`, but for faults inside the files.
    """
    faults = Faults(collect=True, shown=SHOWN)
    source, counts = open_joined(folders, root, faults)
    splits = {name: _counts(source.split(name)) for name in source.splits}
    return {
        "sources": {name: str(Path(root) / folder) for name, folder in folders.items()},
        **counts,
        "splits": {
            name: {key: found[key] for key in ("images", "captions per image")} for name, found in splits.items()
        },
        "faults": {kind: faults.counts[kind] for kind in KINDS},
        "reasons": faults.reasons,
    }


def _read_splits(benchmark: Benchmark, faults: Faults, progress: bool) -> dict[str, JsonObject]:
    found: dict[str, JsonObject] = {
        split: {"records": 0, "published": benchmark.published.get(split)} for split in benchmark.splits
    }
    named: dict[str, dict[str, Place]] = {split: {} for split in found}
    records = benchmark.located(benchmark.splits, faults)
    for split, place, record in tqdm(records, desc="reading", unit="record", disable=not progress or None):
        found[split]["records"] += 1
        if isinstance(record, Captioned):
            found[split]["captions"] = found[split].get("captions", 0) + len(record.captions)
        for image in record.images:
            named[split].setdefault(image, place)
    there: dict[str, bool] = {}
    for split, places in named.items():
        found[split]["images"] = len(places)
        found[split][MISSING] = 0
        looked = tqdm(places.items(), desc=f"images of {split}", unit="image", disable=not progress or None)
        for image, place in looked:
            if image not in there:
                there[image] = benchmark.find_image(image) is not None
                if not there[image]:
                    faults.report(MISSING, place, f"image {image} is missing or empty.")
            found[split][MISSING] += not there[image]
    return found


def _counts(rows: pa.Table) -> JsonObject:
    concepts = rows["concept"]
    captions = pc.sum(pc.list_value_length(rows["captions"])).as_py()
    return {
        "images": rows.num_rows,
        "captions per image": round(captions / rows.num_rows, 2),
        "concepts": len(concepts.drop_null().unique()) + concepts.null_count,
    }


def repeated_pixels(
    pairs: Pairs, splits: Sequence[str], digests: Sequence[bytes | None]
) -> tuple[dict[str, int], list[str]]:
    """Images whose pixels an earlier image has too.

    Args:
        splits: the split of each image.
        digests: of the pixels of each image; None for an image without any.

    Returns:
        ``{"images", "with other captions", "across splits"}``, and a sentence for each of the first 20, those with
        other captions first.
    """
    first: dict[bytes, int] = {}
    found = {"images": 0, "with other captions": 0, "across splits": 0}
    other, same = [], []
    for index, digest in enumerate(digests):
        if digest is None or (earlier := first.setdefault(digest, index)) == index:
            continue
        names = [pairs.image_ids[earlier], pairs.image_ids[index]]
        captions = [pairs.captions_of(earlier), pairs.captions_of(index)]
        across = splits[earlier] != splits[index]
        found["images"] += 1
        found["across splits"] += across
        where = f", in splits {splits[earlier]} and {splits[index]}" if across else ""
        told = f"same pixels: {printable(names[0])} and {printable(names[1])}{where}"
        if set(captions[0]) != set(captions[1]):
            found["with other captions"] += 1
            other.append(f"{told}, under other captions: {captions[0][0][:60]!r} and {captions[1][0][:60]!r}")
        else:
            same.append(told)
    return found, [*other, *same][:SHOWN]


def _decoded(pairs: Pairs, progress: bool) -> Iterator[str | bytes]:
    """For each image a digest of its size and pixels, or the reason why it cannot be decoded.

    Pillow decodes outside the interpreter's lock.
    """

    def digest(index: int) -> str | bytes:
        try:
            image = pairs.open(index)
        except DataError as error:
            return str(error)
        return hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()

    bar = tqdm(total=len(pairs), desc="decoding images", unit="image", disable=not progress or None)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(pairs), _BLOCK):
            for found in pool.map(digest, range(start, min(start + _BLOCK, len(pairs)))):
                bar.update()
                yield found
