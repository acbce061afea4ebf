"""The pictogram corpus: one concept drawn by many vendors, with sentences, as parquet files and a manifest.

Training vendors and test vendors never mix; new concepts are held out from every training vendor. See
``vendors`` for the packages, ``splits`` for the rules.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import track

from ashnets.data.corpus import MANIFEST, METADATA, SCHEMA_VERSION, Corpus
from ashnets.data.pictograms.captions import sentences
from ashnets.data.pictograms.clips import ATTRIBUTIONS, clip_rows, write_attributions
from ashnets.data.pictograms.debian import DebianPackage, fetch_deb
from ashnets.data.pictograms.drawing import draw
from ashnets.data.pictograms.npm_packages import default_cache, fetch
from ashnets.data.pictograms.openclipart import RULE as RULE_OF_CLIPS
from ashnets.data.pictograms.openclipart import VENDOR
from ashnets.data.pictograms.sources import Concept, Drawing, Sources, Vendor, read_concepts, read_drawings
from ashnets.data.pictograms.splits import RULE, choose_new, choose_valid
from ashnets.data.pictograms.vendors import SOURCES
from ashnets.digests import sha256_of
from ashnets.errors import DataError, InputError, OutputError
from ashnets.files import JsonObject, write_json
from ashnets.result_folder import check_place, result_folder

COLUMNS = pa.schema(
    [
        ("image", pa.binary()),
        ("image_id", pa.string()),
        ("vendor", pa.string()),
        ("concept", pa.string()),
        ("name", pa.string()),
        ("group", pa.string()),
        ("subgroup", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("captions", pa.list_(pa.string())),
    ]
)


def build(
    output: Path,
    *,
    cache: Path | None = None,
    size: int = 128,
    seed: int = 0,
    progress: bool = True,
    force: bool = False,
    new_concepts: int = 200,
    valid_share: float = 0.05,
    sources: Sources = SOURCES,
    clipart: DebianPackage | None = None,
) -> JsonObject:
    """Build the corpus in the folder ``output`` and return its manifest.

    With ``clipart`` (``OPENCLIPART``) the training split also gets its drawings; all other splits are the same.

    Tarballs come from ``cache`` or, by npm, from the registry. Drawings are RGBA PNGs of ``size`` px (a bitmap that is
    published smaller keeps its size). An interrupted build leaves no corpus (see :mod:`ashnets.result_folder`) and is
    started afresh. A complete corpus is replaced with ``force`` only.

    Raises DataError for an unreachable package, a wrong sha256 and damaged content; OutputError for an ``output`` that
    is in the way or cannot be written.
    """
    output = Path(output)
    if not 16 <= size <= 1024:
        raise InputError(f"size={size}: the side of a drawing must lie between 16 and 1024 px.")
    if new_concepts < 0 or not 0 <= valid_share <= 0.5:
        raise InputError(f"new_concepts={new_concepts} must be 0 or more, valid_share={valid_share} lie in [0, 0.5].")
    _require_new(output, MANIFEST, force)
    cache = default_cache() if cache is None else Path(cache)
    with result_folder(output, MANIFEST) as folder:
        return _build(folder, cache, size, seed, new_concepts, valid_share, progress, sources, clipart)


def _require_new(output: Path, mark: str, force: bool) -> None:
    """Refuse a folder that holds something else (no file ``mark``) or, without ``force``, a finished result."""
    if not force and (output / mark).is_file():
        raise OutputError(f"{output} is already complete. Choose another folder, or replace it with force=True.")
    check_place(output, mark)


def _build(
    folder: Path,
    cache: Path,
    size: int,
    seed: int,
    new_concepts: int,
    valid_share: float,
    progress: bool,
    sources: Sources,
    clipart: DebianPackage | None,
) -> JsonObject:
    """Fill an empty folder; returns the manifest."""
    deb = fetch_deb(clipart, cache) if clipart else None
    packages = sources.packages()
    tarballs = {p.spec: fetch(p, cache) for p in track(packages, "Fetching packages", disable=not progress)}

    concepts, left_out = read_concepts(sources, tarballs)
    drawings: dict[str, list[Drawing]] = {}
    losses: dict[str, dict] = {}
    for vendor in track(sources.vendors, "Reading packages", disable=not progress):
        drawings[vendor.name], losses[vendor.name] = read_drawings(vendor, tarballs[vendor.package.spec], concepts)
    splits = _assign(sources.vendors, concepts, drawings, new_concepts=new_concepts, valid_share=valid_share, seed=seed)

    clips: list[JsonObject] = []
    if deb:
        new = {d.code for name, rows in splits.items() if name.endswith("-new") for _, d in rows}
        clips, losses[VENDOR] = clip_rows(deb, concepts, new, size, seed, progress)
        write_attributions(folder / ATTRIBUTIONS, clips)

    files = {}
    repeated: dict[str, int] = {}
    for name, rows in splits.items():
        shown = track(rows, f"Drawing {name}", disable=not progress)
        drawn = [_row(vendor, concepts[drawing.code], drawing, size, seed) for vendor, drawing in shown]
        if name == "train":
            drawn += [{key: row[key] for key in COLUMNS.names} for row in clips]
        table = pa.Table.from_pylist(drawn, COLUMNS)
        repeated[name] = len(drawn) - len({row["image"] for row in drawn})
        path = folder / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=256)
        files[name] = {"file": path.name, "rows": len(drawn), "sha256": sha256_of(path)}
    manifest = _manifest(sources, concepts, drawings, splits, files, losses, left_out, repeated, size, seed)
    if clipart:
        _add_clipart(manifest, clipart, len(clips), losses[VENDOR])
    write_json(folder / MANIFEST, manifest)
    return manifest


def _assign(
    vendors: tuple[Vendor, ...],
    concepts: dict[str, Concept],
    drawings: dict[str, list[Drawing]],
    *,
    new_concepts: int,
    valid_share: float,
    seed: int,
) -> dict[str, list[tuple[Vendor, Drawing]]]:
    """Drawings of each split, in the order of vendors and codes."""
    drawn = {vendor.name: {d.code for d in drawings[vendor.name]} for vendor in vendors}
    in_every_test = set(concepts).intersection(*(drawn[v.name] for v in vendors if v.test))
    names = {code: concept.name for code, concept in concepts.items()}
    new = choose_new(names, in_every_test, count=new_concepts, seed=seed)
    seen_training = [(v.name, d.code) for v in vendors if not v.test for d in drawings[v.name] if d.code not in new]
    valid = choose_valid(seen_training, share=valid_share, seed=seed)
    seen = {code for _, code in seen_training}
    splits: dict[str, list[tuple[Vendor, Drawing]]] = {"train": [], "valid": []}
    for vendor in (v for v in vendors if not v.test):
        for drawing in drawings[vendor.name]:
            if drawing.code not in new:
                split = "valid" if (vendor.name, drawing.code) in valid else "train"
                splits[split].append((vendor, drawing))
    for kind, codes in (("seen", seen), ("new", new)):
        for vendor in (v for v in vendors if v.test):
            splits[f"test-{vendor.name}-{kind}"] = [(vendor, d) for d in drawings[vendor.name] if d.code in codes]
    return splits


def _row(vendor: Vendor, concept: Concept, drawing: Drawing, size: int, seed: int) -> JsonObject:
    image_id = f"{vendor.name}/{concept.code}"
    keywords = list(concept.keywords)
    return {
        "image": draw(drawing.data, size, label=image_id),
        "image_id": image_id,
        "vendor": vendor.name,
        "concept": concept.code,
        "name": concept.name,
        "group": concept.group,
        "subgroup": concept.subgroup,
        "keywords": keywords,
        "captions": sentences(concept.name, keywords, concept.group, concept.subgroup, key=f"{seed} {image_id}"),
    }


def _manifest(
    sources: Sources,
    concepts: dict[str, Concept],
    drawings: dict[str, list[Drawing]],
    splits: dict[str, list[tuple[Vendor, Drawing]]],
    files: dict[str, dict],
    losses: dict[str, dict],
    left_out: dict[str, int],
    repeated: dict[str, int],
    size: int,
    seed: int,
) -> JsonObject:
    used = {(v.name, d.code) for rows in splits.values() for v, d in rows}
    new = {d.code for name, rows in splits.items() if name.endswith("-new") for _, d in rows}
    withheld = Counter(v.name for v in sources.vendors if not v.test for d in drawings[v.name] if d.code in new)
    undrawn = {
        v.name: sorted(d.code for d in drawings[v.name] if d.code not in new and (v.name, d.code) not in used)
        for v in sources.vendors
        if v.test
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "pictograms",
        "title": "pictograms",
        "seed": seed,
        "size": size,
        "images": "RGBA PNG; bitmaps published smaller than `size` keep their size; SVG rendered by resvg.",
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "license": package.license,
                "attribution": package.attribution,
                "sha256": package.sha256,
            }
            for package in sources.packages()
        ],
        "vendors": {
            v.name: {
                "package": v.package.spec,
                "role": "test" if v.test else "train",
                "concepts": len(drawings[v.name]),
                "losses": losses[v.name],
            }
            for v in sources.vendors
        },
        "concepts": {
            "listed": len(concepts),
            "seen": len({d.code for rows in (splits["train"], splits["valid"]) for _, d in rows}),
            "new": sorted(new),
        },
        "rules": {
            "left out": {
                **left_out,
                "skin tones": "variants are left out: the list of concepts holds the neutral form alone",
                "new concepts in training vendors": dict(withheld),
                "test drawings of concepts that no training vendor drew": undrawn,
            },
            "new concepts": RULE,
            "validation": "drawings of training vendors, at most one a concept; two others of it stay in training",
        },
        "splits": {
            name: {
                **files[name],
                "vendors": dict(Counter(vendor.name for vendor, _ in rows)),
                # One drawing under several concepts (person surfing, man surfing): retrieval cannot tell them apart.
                "repeated drawings": repeated[name],
            }
            for name, rows in splits.items()
        },
    }


def _add_clipart(manifest: JsonObject, package: DebianPackage, count: int, losses: dict[str, int]) -> None:
    manifest["title"] = f"pictograms-{VENDOR}"
    record = {key: getattr(package, key) for key in ("name", "version", "license", "attribution", "sha256")}
    manifest["packages"].append({**record, "authors of each drawing": ATTRIBUTIONS})
    spec = f"{package.name}@{package.version}"
    manifest["vendors"][VENDOR] = {"package": spec, "role": "train", "drawings": count, "losses": losses}
    manifest["rules"][VENDOR] = RULE_OF_CLIPS
    manifest["splits"]["train"]["vendors"][VENDOR] = count


def build_gallery(
    corpus: Corpus,
    output: Path,
    *,
    vendor: str = "twitter",
    seen: int = 240,
    new: int = 60,
    seed: int = 0,
    force: bool = False,
) -> int:
    """Write a small gallery of held-out drawings as a Hugging Face imagefolder; returns the number of images.

    ``seen`` concepts are taken evenly over the groups, ``new`` ones at random; both depend on ``seed`` alone. The
    folder gets ``metadata.jsonl``, ``images/`` and ``ATTRIBUTION.md``.
    """
    output = Path(output)
    _require_new(output, METADATA, force)
    if vendor not in corpus.manifest["vendors"]:
        raise DataError(f"{corpus.path}: no vendor {vendor!r}; there are {', '.join(corpus.manifest['vendors'])}.")
    chosen = {
        "seen": _evenly(corpus.split(f"test-{vendor}-seen").table.to_pylist(), seen, f"gallery seen {seed}"),
        "new": _evenly(corpus.split(f"test-{vendor}-new").table.to_pylist(), new, f"gallery new {seed}", by=None),
    }
    spec = corpus.manifest["vendors"][vendor]["package"]
    package = next(p for p in corpus.manifest["packages"] if f"{p['name']}@{p['version']}" == spec)
    if "license" not in package:
        raise DataError(f"{corpus.path / MANIFEST}: package {spec} has no key 'license'. Build the corpus again.")
    with result_folder(output, METADATA) as folder:
        (folder / "images").mkdir()
        lines = []
        for split, rows in chosen.items():
            for row in rows:
                file_name = f"images/{row['concept']}.png"
                (folder / file_name).write_bytes(row["image"])
                kept = {key: row[key] for key in ("image_id", "concept", "name", "group", "captions")}
                lines.append(json.dumps({"file_name": file_name, **kept, "split": split}, ensure_ascii=False))
        (folder / METADATA).write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = ATTRIBUTION.format(count=len(lines), **package)
        (folder / "ATTRIBUTION.md").write_text(text, encoding="utf-8")
    return len(lines)


def _evenly(rows: list[JsonObject], count: int, key: str, by: str | None = "group") -> list[JsonObject]:
    """``count`` rows, taken in turn from each value of column ``by``, in the order of the split."""
    if count > len(rows):
        raise DataError(f"a gallery of {count} drawings was asked for, the split has {len(rows)}.")
    shuffled = list(range(len(rows)))
    random.Random(key).shuffle(shuffled)
    turns: Counter[Any] = Counter()
    order: list[tuple[int, int, int]] = []  # (turn of the group, place in the draw, row)
    for index in shuffled:
        value = rows[index][by] if by else None
        order.append((turns[value], len(order), index))
        turns[value] += 1
    return [rows[index] for index in sorted(index for _, _, index in sorted(order)[:count])]


ATTRIBUTION = """# Attribution

The {count} drawings in `images/` come from the npm package {name} {version}:
{attribution}

License of the drawings: {license} (<https://spdx.org/licenses/{license}.html>).
Changes: palette images were stored as RGBA; nothing else. Names and groups are those of the Unicode Consortium, the
sentences in `metadata.jsonl` were made from names and keywords by ashnets.

The corpus that they are taken from holds every drawing of this vendor out of training.
"""
