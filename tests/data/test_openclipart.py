"""Drawings of openclipart, from a tiny Debian package made here, to the training split."""

import hashlib
import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from ashnets.data.corpus import open_corpus
from ashnets.data.images import load_rgba
from ashnets.data.pictograms.building import build
from ashnets.data.pictograms.debian import DebianPackage, fetch_deb, read_deb
from ashnets.data.pictograms.drawing import draw, fill
from ashnets.data.pictograms.openclipart import read_clips
from ashnets.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))
import tiny_packages

PUBLIC = "http://web.resource.org/cc/PublicDomain"
SHAPES = {
    "red": '<rect width="8" height="8" fill="red"/>',
    "green": '<circle cx="4" cy="4" r="4" fill="green"/>',
    "left": '<rect width="3" height="8"/>',
    "below": '<rect y="5" width="8" height="3" fill="blue"/>',
    "blank": "",
}


def svg(title: str, keywords: str = "", shape: str = "red", license: str = PUBLIC, author: str = "A. Painter") -> bytes:
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords.split(",") if word)
    return (
        '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:cc="http://web.resource.org/cc/" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" viewBox="0 0 8 8"><metadata><rdf:RDF><cc:Work>'
        f"<dc:title>{title}</dc:title><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>"
        f"<dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent></dc:creator>"
        f'<cc:license rdf:resource="{license}"/></cc:Work></rdf:RDF></metadata>{SHAPES.get(shape, shape)}</svg>'
    ).encode()


FILES = {
    "animals/gull_a_painter_01.svg": svg("Gull", "bird,animal", "green"),
    "animals/gull_copy.svg": svg("Gull", "bird", "green"),
    "animals/gull-copy.svg": svg("Gull", "bird", "green"),
    "animals/bat_01.svg": svg("Clipart by Nicu Buculei - pear", "mammal", "left"),
    "animals/cavallo_architetto_franc_01.svg": svg("Cavallo", "horse,mammal", "below", author="F. Rollandin"),
    "animals/horse.svg": svg("A Horse (B and W)", "horse,molester"),
    "animals/pony.svg": svg("AfricanPony2", "horse,equine", "red"),
    "animals/nothing.svg": svg("Nothing", "", "blank"),
    "animals/owned.svg": svg("Owned", license="http://creativecommons.org/licenses/GPL/2.0/"),
    "animals/linked.svg": svg("Linked", "", '<image width="8" height="8" xlink:href="/etc/logo.png"/>'),
    "animals/nested.svg": svg("Nested", "", '<image xlink:href="data:image/svg+xml;base64,AA"/>'),
    "animals/broken.svg": b"<svg",
    "animals/sea.svg": svg("Sea", "rocket ship"),
    "computer/icons/x/close.svg": svg("Close"),
    "unsorted/x_01.svg": svg("X 2"),
    "README": b"no drawing",
}


def write_deb(path: Path, files: dict[str, bytes]) -> None:
    tiny_packages.write_deb(path, {f"usr/share/openclipart/svg/{name}": data for name, data in files.items()})


@pytest.fixture
def package(tmp_path) -> DebianPackage:
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "clips_1_all.deb"
    write_deb(path, FILES)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return DebianPackage("clips", "1", digest, "CC-PDDC", "Many.", "pool/clips")


def test_which_drawings_are_taken_and_their_words(package, tmp_path):
    clips, lost = read_clips(tmp_path / "cache" / package.file, ["rocket"])
    assert {clip.file.split("/")[1]: clip.name for clip in clips} == {
        "gull_a_painter_01.svg": "gull",
        "gull_copy.svg": "gull",
        "gull-copy.svg": "gull",
        "bat_01.svg": "bat",
        "cavallo_architetto_franc_01.svg": "horse",
        "pony.svg": "african pony",
        "nothing.svg": "nothing",
    }
    assert lost == {
        "an unsuitable word": 1,
        "not marked as public domain": 1,
        "refers to other files": 2,
        "not valid XML": 1,
        "a word of a new concept": 1,
        "icons, shapes, flags, maps and playing cards": 1,
        "no word": 1,
    }
    assert len({clip.image_id for clip in clips}) == len(clips)
    gull = next(clip for clip in clips if clip.file.endswith("gull_a_painter_01.svg"))
    assert (gull.keywords, gull.author, gull.image_id) == (
        ("bird",),
        "A. Painter",
        "openclipart/animals/gull_a_painter_01",
    )


def test_a_drawing_without_view_box_fills_the_square(tmp_path):
    page = svg("Red").replace(b'viewBox="0 0 8 8"', b'width="24.000pt" height="48.0pt"')
    write_deb(tmp_path / "a.deb", {"animals/red.svg": page})
    ((clip,), _) = read_clips(tmp_path / "a.deb", [])
    image = load_rgba(draw(clip.svg, 64))
    assert image.getbbox() == (16, 0, 24, 8)  # 32 x 64 px, in the middle of 64 x 64
    whole = load_rgba(fill(draw(clip.svg, 64), 8))
    assert whole.size == (8, 8) and whole.getpixel((4, 4)) == (255, 0, 0, 255) and whole.getbbox() == (0, 0, 8, 8)


def test_only_the_training_split_changes(package, tmp_path):
    sources = tiny_packages.make(tmp_path / "cache")
    options = {"cache": tmp_path / "cache", "sources": sources, "size": 48, "new_concepts": 4, "progress": False}
    plain = build(tmp_path / "plain", **options)
    broad = build(tmp_path / "broad", **options, clipart=package)
    assert (plain["title"], broad["title"]) == ("pictograms", "pictograms-openclipart")
    for name, entry in plain["splits"].items():
        assert (entry["sha256"] == broad["splits"][name]["sha256"]) == (name != "train")
    before = list(open_corpus(tmp_path / "plain").split("train"))
    after = list(open_corpus(tmp_path / "broad", verify=True).split("train"))
    added = after[len(before) :]
    assert after[: len(before)] == before
    assert sorted(row["name"] for row in added) == ["african pony", "bat", "gull", "horse"]  # one gull, no blank
    assert all(row["captions"][0] == row["name"] for row in added)
    sea = "1f680" not in broad["concepts"]["new"]  # its keyword is rocket; it looks like the pony
    losses = broad["vendors"]["openclipart"]["losses"]
    assert losses["near-duplicates"] == 2 + sea and losses["blank"] == 1
    assert broad["splits"]["train"]["vendors"]["openclipart"] == len(added)
    lines = (tmp_path / "broad" / "attribution-openclipart.jsonl").read_text().splitlines()
    assert [json.loads(line)["image_id"] for line in lines] == [row["image_id"] for row in added]
    assert {json.loads(line)["license"] for line in lines} == {"public domain"}


def test_a_package_is_fetched_checked_and_never_half_written(package, tmp_path):
    archive = tmp_path / "archive" / package.pool
    archive.mkdir(parents=True)
    source = (tmp_path / "cache" / package.file).read_bytes()
    (archive / package.file).write_bytes(source)
    address = (tmp_path / "archive").as_uri()
    assert fetch_deb(package, tmp_path / "new", (address,)).read_bytes() == source
    (archive / package.file).write_bytes(source[:-9])
    with pytest.raises(DataError, match=f"pinned is {package.sha256}"):
        fetch_deb(package, tmp_path / "other", (address,))
    with pytest.raises(DataError, match=r"could not be fetched.*put the file into the cache"):
        fetch_deb(package, tmp_path / "other", ((tmp_path / "nowhere").as_uri(),))
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("answer", [b"hello\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab"])
def test_a_broken_answer_is_named(package, tmp_path, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(DataError, match="could not be fetched"):
            fetch_deb(package, tmp_path / "new", (f"http://127.0.0.1:{server.getsockname()[1]}",))
        serving.join()


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"text", b"!<arch>\n" + b"x" * 80])
def test_a_damaged_package_is_named(tmp_path, content):
    (tmp_path / "a.deb").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.deb: the package is damaged"):
        read_deb(tmp_path / "a.deb", lambda name: True)


def test_a_package_that_is_cut_short(package, tmp_path):
    path = tmp_path / "cache" / package.file
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="the package is damaged"):
        read_deb(path, lambda name: True)
