"""Hand-made npm packages of a few drawings, so that the corpus is built from end to end without a network."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ashnets.data.pictograms.npm_packages import Package
from ashnets.data.pictograms.sources import Sources, Vendor

# character, name, group. Names are chosen so that families of shared words are known:
# {red apple, green apple, red heart}, {cats, black cat}, {oak}, {fish}, ... each of the last alone.
CONCEPTS = [
    ("🍎", "red apple", "Food & Drink"),
    ("🍏", "green apple", "Food & Drink"),
    ("❤️", "red heart", "Smileys & Emotion"),
    ("🐈", "cats", "Animals & Nature"),
    ("🐈‍⬛", "black cat", "Animals & Nature"),
    ("🐟", "fish", "Animals & Nature"),
    ("🌳", "oak", "Animals & Nature"),
    ("🚀", "rocket", "Travel & Places"),
    ("⚓", "anchor", "Travel & Places"),
    ("🎺", "trumpet", "Objects"),
    ("👁️", "eye", "People & Body"),
    ("🏁", "chequered flag", "Flags"),
]
FLAGS = [("🇫🇷", "flag France", "Flags"), ("🇯🇵", "flag: Japan", "Flags")]
KEYWORDS = {
    "🍎": ["red_apple", "fruit", "Apple pie", "¿no?", "beta"],
    "🐟": ["sea", "animal", "molester", "ugly_duckling"],
}


def code(character: str, keep_fe0f: bool = True) -> str:
    return "-".join(f"{ord(c):04x}" for c in character if keep_fe0f or c != "️")


def png(color: tuple[int, int, int], side: int = 64, mode: str = "RGBA") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (side, side), (*color, 255)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def svg(color: str) -> bytes:
    body = f'<rect width="32" height="32" fill="{color}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>'.encode()


def write_tarball(path: Path, members: dict[str, bytes]) -> str:
    """Write ``package/...`` members as npm does and return the sha256."""
    # mtime 0: the same members are the same bytes, and the same sha256, in any second
    with gzip.GzipFile(path, "wb", mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_deb(path: Path, files: dict[str, bytes]) -> str:
    """Write files and a link as a Debian package does and return the sha256."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo(f"./{Path(next(iter(files))).parent}/link.svg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    content = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0"), ("data.tar.xz", packed.getvalue())):
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def make(cache: Path) -> Sources:
    """Fill ``cache`` with tarballs; four training vendors (alpha, beta, gamma, delta), test vendors east and west."""
    cache.mkdir(parents=True, exist_ok=True)

    def package(name: str, members: dict[str, bytes], license: str = "CC-BY-4.0") -> Package:
        made = Package(name, "1.0.0", "", license, f"The painters of {name}.")
        return replace(made, sha256=write_tarball(cache / made.tarball, members))

    listed = {c: {"name": name, "group": group} for c, name, group in CONCEPTS + FLAGS}
    names = package("names", {"data-by-emoji.json": json.dumps(listed).encode()}, "MIT")
    keywords = package("@tiny/keywords", {"dist/emoji-en-US.json": json.dumps(KEYWORDS).encode()}, "MIT")
    records = [
        {"unified": code(c).upper(), "name": name.upper(), "short_names": [name[-4:]], "subcategory": "some-thing"}
        for c, name, _ in CONCEPTS
    ]
    bitmaps = {f"img/64/{code(c)}.png": png((10 * i, 0, 0)) for i, (c, _, _) in enumerate(CONCEPTS)}
    bitmaps |= {"img/64/1f44b-1f3fb.png": png((1, 1, 1)), "img/64/1f1eb-1f1f7.png": png((2, 2, 2)), "img/big.png": b"x"}
    alpha = package("alpha", {"emoji.json": json.dumps(records).encode(), **bitmaps})
    icons = {
        "width": 32,
        "height": 32,
        "icons": {
            "red-apple": {"body": '<rect width="32" height="32" fill="#0000ff"/>'},
            "verdant": {"body": '<rect width="32" height="32" fill="#00ff00"/>'},  # found by the alias green-apple
            "whale": {"body": "<g/>"},  # by the table of spellings: fish
            "fish": {"body": "<g/>"},  # ... which comes before this one
            "waving-hand-light-skin-tone": {"body": "<g/>"},
            "flag-for-france": {"body": "<g/>"},
            "unheard-of": {"body": "<g/>"},
        },
        "aliases": {"green-apple": {"parent": "verdant"}, "oak": {"parent": "unheard-of", "hFlip": True}},
    }
    metadata = {"categories": {"Flags": ["flag-for-france"]}}
    iconify = {"icons.json": icons, "metadata.json": metadata}
    beta = package("@tiny/beta", {name: json.dumps(content).encode() for name, content in iconify.items()})
    gamma = package("gamma", {f"svg/{code(c).upper()}.svg": svg("#102030") for c, _, _ in CONCEPTS})
    delta = package("delta", {f"art/{code(c, False)}.png": png((0, 99, 0), 300, "P") for c, _, _ in CONCEPTS[:9]})
    west = package("west", {f"img/{code(c)}.png": png((0, 0, 20 * i)) for i, (c, _, _) in enumerate(CONCEPTS)})
    east = package("east", {f"svg/{code(c).upper()}.svg": svg("#405060") for c, _, _ in CONCEPTS}, "CC-BY-SA-4.0")
    return Sources(
        names=names,
        keywords=keywords,
        subgroups=alpha,
        vendors=(
            Vendor("alpha", alpha, folder="img/64"),
            Vendor("beta", beta, spellings=(("whale", "fish"),)),
            Vendor("gamma", gamma, folder="svg", suffix=".svg"),
            Vendor("delta", delta, folder="art"),
            Vendor("west", west, test=True, folder="img"),
            Vendor("east", east, test=True, folder="svg", suffix=".svg"),
        ),
    )
