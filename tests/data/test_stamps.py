"""Tux Paint's stamps, from a tiny Debian package made here, to a folder like one of a user."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ashnets.data.sources.opening import open_source
from ashnets.data.stamps import STAMPS, build_stamps
from ashnets.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))
import tiny_packages
from tiny_packages import png

RED, GREEN, BLUE = (200, 0, 0), (0, 160, 0), (0, 0, 220)
PAGE = '<svg xmlns="http://www.w3.org/2000/svg" width="24pt" height="24pt">{}</svg>'
SQUARE = '<rect x="4" y="4" width="8" height="8" fill="blue"/>'
STAMPS_OF = {
    "animals/birds/gull.png": (png(RED), "A  gull!\nde.utf8=Eine M\u00f6we."),
    "animals/birds/gull-2.png": (png(GREEN), "A GULL!"),
    "animals/birds/tern.png": (png(GREEN), "A tern."),
    "animals/birds/silent.png": (png(RED), ""),
    "animals/birds/rude.png": (png(RED), "A molester."),
    "animals/birds/cartoon/gull.png": (png(BLUE), "A gull!"),
    "food/cake.png": (png(RED), "A cake."),
    "food/cake.svg": (PAGE.format(SQUARE).encode(), "A cake."),
    "food/cake_mirror.svg": (PAGE.format(SQUARE).encode(), "A cake, mirrored."),
    "food/pizza.png": (png(RED), "A pizza."),
    "food/nothing.svg": (b"<svg", "Nothing."),
    "food/linked.svg": (PAGE.format('<image href="/etc/logo.png"/>').encode(), "Linked."),
    "clothes/sock.png": (png(RED), "A sock."),
    "symbols/a.png": (png(RED), "The letter A."),
}


@pytest.fixture
def built(tmp_path):
    files = {"usr/share/doc/x/copyright": b"Many painters."}
    for name, (image, text) in STAMPS_OF.items():
        root = f"usr/share/tuxpaint/stamps/{name}"
        files |= {root: image, f"{root[:-4]}.txt": text.encode()}
    package = replace(STAMPS, name="stamps", version="1")
    package = replace(package, sha256=tiny_packages.write_deb(tmp_path / package.file, files))
    return lambda output, **options: build_stamps(
        tmp_path / output, cache=tmp_path, size=48, progress=False, package=package, **options
    )


def test_photographs_and_drawings_with_their_sentences(built, tmp_path):
    found = built("all")
    rows = [json.loads(line) for line in (tmp_path / "all" / "metadata.jsonl").read_text().splitlines()]
    assert {row["file_name"]: row["captions"] for row in rows} == {
        "photographs/animals/birds/gull-2.png": ["A GULL!"],
        "photographs/animals/birds/tern.png": ["A tern."],
        "drawings/animals/birds/cartoon/gull.png": ["A gull!"],
        "drawings/food/cake.png": ["A cake."],
    }
    assert found["kinds"] == {"photographs": 2, "drawings": 2}
    assert found["left out"] == {
        "a caption that occurs before": 1,
        "neither photograph nor drawing by the rule": 2,
        "mirrored": 1,
        "no caption": 1,
        "an unsuitable word": 1,
        "symbols and weapons": 1,
        "an SVG that cannot be rendered": 2,
    }
    assert "Many painters." in (tmp_path / "all" / "COPYRIGHT").read_text()
    assert "GPL-2.0-or-later" in (tmp_path / "all" / "ATTRIBUTION.md").read_text()
    cake = Image.open(tmp_path / "all" / "drawings/food/cake.png")
    assert cake.size == (48, 48) and cake.getpixel((24, 24)) == (0, 0, 255, 255)
    assert cake.getbbox() == (12, 12, 36, 36)  # 8 of 32 px (24 pt), drawn at 96 px: 24 px without the margins


def test_a_caption_is_in_one_split_and_the_folder_opens_as_images_of_a_user(built, tmp_path):
    built("all")
    assert built("drawings", only="drawings")["left out"]["an SVG that cannot be rendered"] == 2
    assert "a caption that occurs before" not in built("drawings", only="drawings", force=True)["left out"]
    rows = open_source(tmp_path / "all", hold_out=0).rows.to_pylist()
    splits = {}
    for row in rows:
        splits.setdefault(row["concept"].casefold(), set()).add(row["split"])
    assert splits["a gull!"] and all(len(found) == 1 for found in splits.values())
    alone = open_source(tmp_path / "drawings", hold_out=0).rows.to_pylist()
    assert alone == [row for row in rows if row["file"].startswith("drawings/")]


def test_another_package_is_named(tmp_path):
    package = replace(STAMPS, name="other", version="1")
    sha256 = tiny_packages.write_deb(tmp_path / package.file, {"usr/share/doc/x/copyright": b"x"})
    with pytest.raises(DataError, match=r"other_1_all\.deb: no stamps in .*not the expected package"):
        build_stamps(tmp_path / "out", cache=tmp_path, progress=False, package=replace(package, sha256=sha256))
    assert not (tmp_path / "out").exists()
