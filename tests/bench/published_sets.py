"""Folders in the formats of MSCOCO and Visual Genome, of any size, with real JPEGs: for rehearsals of training.

    python tests/bench/published_sets.py out/sets --coco 3000 --genome 2600

Photographs are 640 × 480 colored shapes on textures, compressed as COCO's are (about 85 KB); captions and regions say
what they show. A share of Visual Genome's images are COCO's, in the proportions of the published sets, and every kind
of image that must be left out occurs. With ``--distinct N`` only N photographs are painted; further files are links to
them. Photographs that an interrupted call has painted are kept.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 640, 480
COLORS = {"red": (200, 30, 30), "green": (30, 150, 50), "blue": (30, 60, 200), "yellow": (220, 200, 40)}
SHAPES = ("circle", "square", "triangle")
PLACES = ("on the left", "in the middle", "on the right")
SPLITS = {"train": 0.671, "restval": 0.247, "val": 0.041, "test": 0.041}  # of Karpathy's split
IN_BOTH = 0.47  # of Visual Genome's images
REGIONS = 12
Thing = tuple[str, str, str]


class Painter:
    """Photographs, of which the first ``distinct`` are painted."""

    def __init__(self, distinct: int | None, rng: np.random.Generator) -> None:
        self.distinct, self.rng, self.asked = distinct, rng, 0
        self.painted: list[tuple[Path, list[Thing]]] = []

    def __call__(self, path: Path, things: list[Thing] | None = None) -> list[Thing]:
        """Write a photograph of ``things``, of drawn ones by default; returns what it shows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.asked += 1
        if self.distinct and len(self.painted) >= self.distinct:
            old, things = self.painted[self.asked % self.distinct]
            if not path.exists():
                os.link(old, path)
            return things
        things = things or _things(self.rng)
        _paint(path, things, self.rng)
        self.painted.append((path, things))
        return things


def write_sets(root: Path, coco: int, genome: int, seed: int = 0, distinct: int | None = None) -> Path:
    """Write ``root/coco`` and ``root/visual-genome``; the same seed gives the same files."""
    rng = np.random.default_rng(seed)
    paint = Painter(distinct, rng)
    splits = rng.choice(list(SPLITS), coco, p=list(SPLITS.values()))
    images, official, shown = [], [], {}
    for number in range(1, coco + 1):
        split = str(splits[number - 1])
        part = "train2014" if split == "train" else "val2014"
        name = f"COCO_{part}_{number:012d}.jpg"
        things = shown[number] = paint(root / "coco" / part / name)
        sentences = [{"raw": _caption(things, rng), "sentid": 5 * number + i} for i in range(5)]
        images.append({"filepath": part, "filename": name, "cocoid": number, "split": split, "sentences": sentences})
        url = f"http://farm4.staticflickr.com/3153/{10**6 + number}_164f0c0b83_z.jpg"
        official.append({"id": number, "file_name": name, "flickr_url": url})
    _json(root / "coco" / "dataset_coco.json", {"dataset": "coco", "images": images})
    _json(root / "coco" / "annotations" / "captions_train2014.json", {"images": official, "annotations": []})
    out = [{"filename": f"{10**6 + n}.jpg", "imgid": n, "split": "test"} for n in range(1, coco + 1, 500)]
    _json(
        root / "coco" / "dataset_flickr30k.json",
        {"images": [{**one, "sentences": [{"raw": "x", "sentid": i}]} for i, one in enumerate(out)]},
    )
    regions, data = [], []
    both = rng.permutation(coco)[: round(IN_BOTH * genome)] + 1
    for place in range(genome):
        number = 10 * coco + place
        coco_id = int(both[place]) if place < len(both) else None
        folder = "VG_100K" if place % 2 else "VG_100K_2"
        things = paint(root / "visual-genome" / folder / f"{number}.jpg", shown.get(coco_id))
        box = {"x": 0, "y": 0, "width": 9, "height": 9, "image_id": number}
        phrases = [_region(things[int(rng.integers(len(things)))]) for _ in range(REGIONS)]
        own = [{**box, "region_id": REGIONS * number + i, "phrase": phrase} for i, phrase in enumerate(phrases)]
        regions.append({"id": number, "regions": own})
        data.append({"image_id": number, "coco_id": coco_id, "flickr_id": 10**7 + number, "url": ""})
    _json(root / "visual-genome" / "region_descriptions.json", regions)
    _json(root / "visual-genome" / "image_data.json", data)
    return root


def write_photographs(root: Path, count: int, seed: int = 0) -> Path:
    """Write photographs with a text file beside each, as for one's own images."""
    rng = np.random.default_rng(seed)
    paint = Painter(None, rng)
    for number in range(count):
        path = root / f"{number:06d}.jpg"
        things = paint(path)
        captions = dict.fromkeys(_caption(things, rng) for _ in range(5))
        path.with_suffix(".txt").write_text("\n".join(captions))
    return root


def _things(rng: np.random.Generator) -> list[Thing]:
    """One to three things, in different places."""
    places = rng.permutation(PLACES)[: int(rng.integers(1, 4))]
    return [(str(rng.choice(list(COLORS))), str(rng.choice(SHAPES)), str(place)) for place in places]


def _region(thing: Thing) -> str:
    color, shape, place = thing
    return f"the {shape} {place} is {color}"


def _caption(things: list[Thing], rng: np.random.Generator) -> str:
    order = rng.permutation(len(things))
    return " and ".join(f"a {things[i][0]} {things[i][1]}" for i in order) + " on a wall."


def _paint(path: Path, things: list[Thing], rng: np.random.Generator) -> None:
    """Paint what is not there; the draws are the same if it is."""
    coarse = rng.integers(90, 170, (24, 32, 3), dtype=np.uint8)
    fine = rng.integers(-14, 15, (HEIGHT, WIDTH, 1), dtype=np.int16)  # grain: files as large as photographs
    places = [(int(rng.integers(-20, 21)), int(rng.integers(150, 330)), int(rng.integers(50, 90))) for _ in things]
    if path.exists():
        return
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), 3), dtype=np.int16)
    image = Image.fromarray((smooth + fine).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for (color, shape, place), (aside, y, size) in zip(things, places, strict=True):
        x = 110 + 210 * PLACES.index(place) + aside
        box, fill = (x - size, y - size, x + size, y + size), COLORS[color]
        if shape == "circle":
            draw.ellipse(box, fill)
        elif shape == "square":
            draw.rectangle(box, fill)
        else:
            draw.polygon([(x, y - size), (x - size, y + size), (x + size, y + size)], fill)
    part = path.with_suffix(".part")
    image.save(part, "JPEG", quality=85)
    part.rename(path)


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--coco", type=int, default=3000, help="images of COCO")
    parser.add_argument("--genome", type=int, default=2600, help="images of Visual Genome")
    parser.add_argument("--distinct", type=int, help="photographs that are painted; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(write_sets(options.folder, options.coco, options.genome, options.seed, options.distinct))
