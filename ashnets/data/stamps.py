"""Tux Paint's stamps as a folder of images: photographs cut out on a transparent ground, and drawings, each captioned.

They stand for images of a user: someone else made and described them, for a paint program. The package does not say
which stamp is a photograph, so a rule over its folders does, and `NOT_PHOTOGRAPHS` has what the rule gets wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tqdm import tqdm

from ashnets.data.corpus import METADATA
from ashnets.data.pictograms.debian import DebianPackage, fetch_deb, read_deb
from ashnets.data.pictograms.drawing import draw, fill, refers_outside, with_view
from ashnets.data.pictograms.npm_packages import default_cache
from ashnets.data.pictograms.suitable import suitable
from ashnets.errors import DataError
from ashnets.files import JsonObject
from ashnets.result_folder import result_folder

STAMPS = DebianPackage(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    "GPL-2.0-or-later",
    "Tux Paint Stamps, copyright 2002-2022 by various contributors.",
    pool="pool/main/t/tuxpaint-stamps",
)
Kind = Literal["photographs", "drawings"]
ATTRIBUTION, COPYRIGHT = "ATTRIBUTION.md", "COPYRIGHT"
_ROOT = "usr/share/tuxpaint/stamps/"
_LEFT_OUT = ("symbols", "military")  # letters, numbers, coins; weapons
_OF_DRAWINGS = {"cartoon", "plastic", "roadsigns", "flags", "clothes", "people", "seasonal"}
NOT_PHOTOGRAPHS = {
    "animals/mammals/hedgehog",
    "food/pizza",
    "medical/tooth",
    "naturalforces/lightningbolt",
    "sports/rugby_goal_posts",
    "town/monuments/inukshuk-outline",
    "vehicles/emergency/sedan_police",
}
_TEST = 3  # one caption in so many is for testing
_DRAWN_AT = 2  # times the size, before empty margins are cut off


@dataclass(frozen=True)
class Stamp:
    """One stamp: its path in the package without suffix, its kind, its caption and the image as published."""

    path: str
    kind: Kind
    caption: str
    image: bytes

    @property
    def split(self) -> str:
        """``train`` or ``test``; equal captions are in the same one."""
        digest = hashlib.sha256(self.caption.casefold().encode()).digest()
        return "train" if int.from_bytes(digest[:8], "big") % _TEST else "test"


def build_stamps(
    output: str | os.PathLike,
    *,
    only: Kind | None = None,
    size: int = 256,
    cache: Path | None = None,
    force: bool = False,
    progress: bool = True,
    package: DebianPackage = STAMPS,
) -> JsonObject:
    """Write a folder of images with ``metadata.jsonl``, the package's copyright file and ``ATTRIBUTION.md``.

    A third of the captions is the split ``test``. No caption occurs in both splits, and none twice in a kind.

    Args:
        only: one kind; both by default.
        size: longer side of the images in pixels; smaller photographs stay as they are.
        cache: where the package is kept between builds.
        force: overwrite an earlier result.

    Returns:
        ``{"folder", "splits": {name: images}, "kinds": {name: images}, "left out": {why: stamps}}``, of the kind that
        was asked for.

    Raises:
        DataError: the package cannot be fetched, is damaged or another one.
        OutputError: ``output`` cannot be written.
    """
    cache = default_cache() if cache is None else cache
    with result_folder(output, METADATA, "replace" if force else "refuse") as folder:
        deb = fetch_deb(package, cache)
        lost: Counter[str] = Counter()
        stamps, copyright_ = read_stamps(deb, lost, only)
        rows = []
        for stamp in tqdm(stamps, desc="stamps", unit="image", disable=not progress):
            image = _draw(stamp, size)
            if image is None:
                lost["an SVG that cannot be rendered"] += 1
                continue
            file = f"{stamp.kind}/{stamp.path}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(image)
            rows.append(
                {"file_name": file, "captions": [stamp.caption], "concept": stamp.caption, "split": stamp.split}
            )
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / METADATA).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / COPYRIGHT).write_bytes(copyright_)
        (folder / ATTRIBUTION).write_text(_ABOUT.format(count=len(rows), package=package), encoding="utf-8")
    return {
        "folder": str(output),
        "splits": dict(sorted(Counter(row["split"] for row in rows).items(), reverse=True)),
        "kinds": dict(Counter(str(row["file_name"]).partition("/")[0] for row in rows)),
        "left out": dict(lost),
    }


def read_stamps(deb: Path, lost: Counter[str], only: Kind | None = None) -> tuple[list[Stamp], bytes]:
    """The stamps of the package in the order of their paths, and its copyright file; ``lost`` counts the others."""
    wanted = (".png", ".svg", ".txt")
    files = read_deb(
        deb, lambda path: path.endswith("/copyright") or (path.startswith(_ROOT) and path.endswith(wanted))
    )
    copyright_ = next((data for path, data in files.items() if path.endswith("/copyright")), None)
    stamps = {path.removeprefix(_ROOT): data for path, data in sorted(files.items()) if path.startswith(_ROOT)}
    if not stamps or copyright_ is None:
        raise DataError(f"{deb}: no stamps in {_ROOT}, or no copyright file; it is not the expected package.")
    return list(_chosen(deb, stamps, lost, only)), copyright_


def _chosen(deb: Path, files: Mapping[str, bytes], lost: Counter[str], only: Kind | None) -> Iterator[Stamp]:
    taken: set[tuple[Kind, str]] = set()
    for file, image in files.items():
        path, suffix = os.path.splitext(file)
        if suffix == ".txt" or (suffix == ".png" and f"{path}.svg" in files):
            continue
        kind, caption = _kind(path, suffix), _caption(deb, path, files)
        if only is not None and kind not in (only, None):
            continue
        if path.startswith(_LEFT_OUT):
            lost["symbols and weapons"] += 1
        elif kind is None:
            lost["neither photograph nor drawing by the rule"] += 1
        elif path.endswith("_mirror"):
            lost["mirrored"] += 1
        elif not caption:
            lost["no caption"] += 1
        elif not suitable(caption):
            lost["an unsuitable word"] += 1
        elif (kind, caption.casefold()) in taken:
            lost["a caption that occurs before"] += 1
        else:
            taken.add((kind, caption.casefold()))
            yield Stamp(path, kind, caption, image)


def _kind(path: str, suffix: str) -> Kind | None:
    """SVG and folders of cartoons are drawings; bitmaps elsewhere photographs, but for folders that mix both."""
    parts = set(PurePosixPath(path).parts[:-1])
    if suffix == ".svg" or "cartoon" in parts:
        return "drawings"
    return None if parts & _OF_DRAWINGS or path in NOT_PHOTOGRAPHS else "photographs"


def _caption(deb: Path, path: str, files: Mapping[str, bytes]) -> str:
    """The first line of the text file, which is English; the others are translations."""
    try:
        return " ".join(files.get(f"{path}.txt", b"").decode("utf-8-sig").partition("\n")[0].split())
    except UnicodeDecodeError as error:
        raise DataError(f"{deb}: {path}.txt is not UTF-8 ({error}); it is not the expected package.") from None


def _draw(stamp: Stamp, size: int) -> bytes | None:
    if stamp.kind == "photographs" or stamp.image.startswith(b"\x89PNG"):
        return draw(stamp.image, size, label=stamp.path)
    try:
        root = ElementTree.fromstring(stamp.image)
        if refers_outside(root):
            return None
        return fill(draw(with_view(root, stamp.image), _DRAWN_AT * size, label=stamp.path), size)
    except (ElementTree.ParseError, DataError):
        return None


_ABOUT = """# Attribution

The {count} images of this folder come from the Debian package {package.name} {package.version}:
{package.attribution}

License: {package.license} (<https://spdx.org/licenses/{package.license}.html>); `COPYRIGHT` is the file of the package.
Changes: images were made smaller and stored as PNG; drawings were rendered from SVG, and their empty margins cut off.
Captions are the first lines of the package's text files.
"""
