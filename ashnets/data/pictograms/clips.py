"""Rows of the training split from the drawings of openclipart."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from rich.progress import track

from ashnets.data.pictograms.captions import sentences
from ashnets.data.pictograms.distinct import distinct
from ashnets.data.pictograms.drawing import draw, fill
from ashnets.data.pictograms.openclipart import VENDOR, read_clips
from ashnets.data.pictograms.sources import Concept, plain
from ashnets.errors import DataError
from ashnets.files import JsonObject, write_atomically

ATTRIBUTIONS = f"attribution-{VENDOR}.jsonl"


def clip_rows(
    deb: Path, concepts: Mapping[str, Concept], new: Collection[str], size: int, seed: int, progress: bool
) -> tuple[list[JsonObject], dict[str, int]]:
    """Rows, each with its ``clip`` besides the corpus' columns, and how many drawings were left out by which rule.

    A drawing whose name is that of a pictogram belongs to the same concept.

    Args:
        deb: the package.
        concepts: all pictograms by code.
        new: codes of the new concepts.
        size: side of the images in pixels.
        seed: of the captions.
        progress: show a progress bar.
    """
    clips, lost = read_clips(deb, [concepts[code].name for code in new])
    drawn = []
    for clip in track(clips, f"Drawing {VENDOR}", disable=not progress):
        try:
            drawn.append((clip, fill(draw(clip.svg, 3 * size, label=clip.file), size)))
        except DataError:
            lost["not rendered"] = lost.get("not rendered", 0) + 1
    kept, repeated = distinct([image for _, image in drawn])
    codes = {plain(concept.name): code for code, concept in concepts.items()}
    rows = []
    for clip, image in (drawn[index] for index in kept):
        keywords = list(clip.keywords)
        row = {
            "image": image,
            "image_id": clip.image_id,
            "vendor": VENDOR,
            "concept": codes.get(plain(clip.name), f"{VENDOR}/{clip.name}"),
            "name": clip.name,
            "group": clip.group,
            "subgroup": "",
            "keywords": keywords,
            "captions": sentences(clip.name, keywords, clip.group, "", key=f"{seed} {clip.image_id}"),
        }
        rows.append({**row, "clip": clip})
    return rows, lost | repeated


def write_attributions(path: Path, rows: Iterable[JsonObject]) -> None:
    """One line of JSON a drawing: its file in the package, title and author as the SVG states them, license."""
    lines = [
        {
            "image_id": row["image_id"],
            "file": row["clip"].file,
            "title": row["clip"].title,
            "author": row["clip"].author,
            "license": "public domain",
        }
        for row in rows
    ]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
