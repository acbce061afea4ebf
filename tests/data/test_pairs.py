"""Pairs: pixels equal those of Pillow and the processor; named damage, many processes, bounded memory."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ashnets.data.images import MAX_PIXELS
from ashnets.data.packed import pack
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.errors import DataError
from ashnets.processor import AshNetsImageProcessor

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ASHNETS_CACHE", str(folder))
    return folder


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def parquet(path: Path, images: list[bytes | None], row_group_size: int | None = None) -> Pairs:
    table = pa.table({"image": pa.array(images, pa.binary()), "caption": [f"text {i}" for i in range(len(images))]})
    pq.write_table(table, path, row_group_size=row_group_size)
    return Pairs(open_source(path, hold_out=0), ["train"], 16)


def folder_of(folder: Path, files: dict[str, bytes]) -> Pairs:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    lines = [json.dumps({"file_name": name, "text": name}) for name in files]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return Pairs(open_source(folder, hold_out=0), ["train"], 16)


def test_real_drawings_are_as_pillow_and_the_processor_give_them(corpus):
    """On white they equal those of the processor, except that alpha is blended after the resize."""
    pairs = Pairs(open_source(corpus), ["train"], 64)
    rows = pq.read_table(corpus / "train.parquet").to_pylist()
    assert len(pairs) == 27
    assert pairs.image_ids == [row["image_id"] for row in rows] and pairs.names == [row["name"] for row in rows]
    assert [pairs.captions_of(i) for i in range(27)] == [row["captions"] for row in rows]
    for i, row in enumerate(rows):
        image = Image.open(io.BytesIO(row["image"])).convert("RGBA").resize((64, 64), Image.Resampling.BICUBIC)
        decoded = pairs.decode(i)
        assert (decoded.shape, decoded.dtype) == ((4, 64, 64), torch.uint8)
        assert np.array_equal(decoded.permute(1, 2, 0), np.asarray(image))
    expected = AshNetsImageProcessor(64)([row["image"] for row in rows], return_tensors="pt")["pixel_values"]
    assert (pairs.on_white(range(27)) - expected).abs().mean() < 0.01
    assert torch.equal(pairs.rgba([3, 1]), torch.stack([pairs.decode(3), pairs.decode(1)]) / 255)
    assert pairs.samples.tolist() == [sorted({r["concept"] for r in rows}).index(row["concept"]) for row in rows]


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    return encoded(Image.fromarray(noise(20, 40, 3)), "JPEG", exif=exif)


OPAQUE = {
    "rgb.png": encoded(Image.fromarray(noise(20, 30, 3))),
    "gray.png": encoded(Image.fromarray(noise(20, 30))),
    "bits.png": encoded(Image.fromarray(noise(20, 30)).convert("1")),
    "sixteen.png": encoded(Image.fromarray(noise(20, 30).astype(np.uint16) * 257)),
    "palette.png": encoded(Image.fromarray(noise(20, 30, 3)).quantize(16)),
    "cmyk.jpg": encoded(Image.fromarray(noise(20, 30, 4), "CMYK"), "JPEG"),
    "moving.gif": encoded(
        Image.fromarray(noise(20, 30)), "GIF", save_all=True, append_images=[Image.fromarray(noise(20, 30, seed=1))]
    ),
    "turned.jpg": rotated(),
}
TRANSPARENT = {
    "rgba.png": encoded(Image.fromarray(noise(20, 30, 4))),
    "la.png": encoded(Image.fromarray(noise(20, 30, 2), "LA")),
    "palette.png": encoded(Image.fromarray(noise(20, 30, 3)).quantize(16), transparency=3),
    "rgba.webp": encoded(Image.fromarray(noise(20, 30, 4)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("stored", ["files", "parquet"])
def test_opaque_images_of_any_kind_are_the_processors(stored, tmp_path):
    data = list(OPAQUE.values())
    pairs = folder_of(tmp_path / "a", OPAQUE) if stored == "files" else parquet(tmp_path / "a.parquet", data)
    expected = AshNetsImageProcessor(16)(data, return_tensors="pt")["pixel_values"]
    assert torch.equal(pairs.on_white(range(len(data))), expected)
    assert (pairs.rgba(range(len(data)))[:, 3] == 1).all()


def test_a_turned_photograph_stands_upright(tmp_path):
    raw = np.asarray(Image.open(io.BytesIO(OPAQUE["turned.jpg"])))
    upright = Image.fromarray(np.rot90(raw, -1)).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(
        parquet(tmp_path / "a.parquet", [OPAQUE["turned.jpg"]]).decode(0)[:3].permute(1, 2, 0), upright
    )


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_pillows(name, tmp_path):
    expected = Image.open(io.BytesIO(TRANSPARENT[name])).convert("RGBA").resize((16, 16), Image.Resampling.BICUBIC)
    decoded = folder_of(tmp_path / "a", {name: TRANSPARENT[name]}).decode(0)
    assert np.array_equal(decoded.permute(1, 2, 0), np.asarray(expected))
    assert decoded[3].min() < 255


def bomb() -> bytes:
    """A PNG whose header declares 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


BAD = {
    "cut short": (OPAQUE["rgb.png"][:500], "damaged or cut short"),
    "a cut photograph": (OPAQUE["turned.jpg"][:300], "damaged or cut short"),
    "no image": (b"<html>not found</html>", "is not an image that can be read"),
    "nothing": (b"", r"is empty \(0 bytes\)"),
    "a bomb": (bomb(), str(MAX_PIXELS)),
}


@pytest.mark.parametrize("name", BAD)
def test_an_undecodable_image_is_named_and_the_others_are_decoded(name, tmp_path):
    data, reason = BAD[name]
    pairs = parquet(tmp_path / "a.parquet", [OPAQUE["rgb.png"], data])
    with pytest.raises(DataError, match=rf"image 'a.parquet#1' \(.*a\.parquet, row 1\): .*{reason}"):
        pairs.decode(1)
    with pytest.raises(DataError, match=r"a\.parquet#1"):
        pairs.on_white([0, 1])
    pairs.decode(0)
    pairs = folder_of(tmp_path / "b", {"x.png": data})
    with pytest.raises(DataError, match=rf"image 'x\.png': Image '.*b/x\.png' .*{reason}"):
        pairs.decode(0)


def test_a_image_that_goes_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"row 1\): The row contains no image"):
        parquet(tmp_path / "a.parquet", [OPAQUE["rgb.png"], None]).decode(1)
    pairs = folder_of(tmp_path / "b", {"x.png": OPAQUE["rgb.png"]})
    (tmp_path / "b" / "x.png").unlink()
    with pytest.raises(DataError, match=r"'x\.png': .* does not exist"):
        pairs.decode(0)


def test_splits_follow_one_another_and_an_empty_choice_is_refused(corpus):
    source = open_source(corpus)
    both = Pairs(source, ["valid", "train", "valid"], 16)
    alone = [Pairs(source, [split], 16) for split in ("valid", "train")]
    assert both.image_ids == alone[0].image_ids + alone[1].image_ids
    assert torch.equal(both.decode(7), alone[1].decode(1))
    with pytest.raises(DataError, match="no split is given; there are train, valid"):
        Pairs(source, [], 16)
    with pytest.raises(DataError, match="no split 'test'"):
        Pairs(source, ["train", "test"], 16)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_decode_the_same(method, tmp_path):
    pairs = parquet(tmp_path / "a.parquet", [encoded(Image.fromarray(noise(16, 16, 4, seed=i))) for i in range(24)])
    expected = [pairs.decode(i).tolist() for i in range(24)]  # a file that is open already must not hinder the others
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert [image.tolist() for image in pool.map(pairs.decode, range(24), chunksize=3)] == expected


def test_what_is_sent_to_a_worker_weighs_what_the_texts_weigh(tmp_path):
    images = [encoded(Image.fromarray(noise(64, 64, 3, seed=i))) for i in range(50)]
    pairs = parquet(tmp_path / "a.parquet", images)
    pairs.decode(0)
    assert len(pairs.image_ids) == len(pairs.names) == 50
    sent = pickle.dumps(pairs)
    assert len(sent) < 20_000 < sum(map(len, images)) / 10
    copy = pickle.loads(sent)
    assert (copy.image_ids, copy.names) == (pairs.image_ids, pairs.names)
    assert torch.equal(copy.rgba([4, 2]), pairs.rgba([4, 2])) and torch.equal(copy.samples, pairs.samples)


OPEN = """
import hashlib, sys
from pathlib import Path
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
sys.stdin.readline()
pairs = Pairs(open_source(sys.argv[1], 0), ["train"], 16)
print(hashlib.sha256(pairs.rgba(range(len(pairs))).numpy().tobytes()).hexdigest())
"""


def test_processes_that_open_at_once_share_one_unpacked_file(tmp_path, cache):
    path = tmp_path / "a.parquet"
    expected = parquet(path, [encoded(Image.fromarray(noise(16, 16, 4, seed=i))) for i in range(40)]).rgba(range(40))
    for file in (cache / "images").iterdir():
        file.unlink()
    command = [sys.executable, "-c", OPEN, str(path)]
    started = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)
    ]
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0].strip() for process in started]
    assert outputs == [hashlib.sha256(expected.numpy().tobytes()).hexdigest()] * 3
    assert sorted(file.suffix for file in (cache / "images").iterdir() if file.suffix != ".lock") == [".arrow"]


def test_files_that_vanish_during_the_cleaning_disturb_no_one(tmp_path, cache):
    """As when other processes rename what they have unpacked: here, links to nothing."""
    (cache / "images").mkdir(parents=True, exist_ok=True)
    (cache / "images" / "other.part").symlink_to(tmp_path / "gone")
    assert len(parquet(tmp_path / "a.parquet", [encoded(Image.fromarray(noise(16, 16, 4)))]).rgba(range(1))) == 1


def test_a_changed_parquet_is_unpacked_again(tmp_path, cache):
    path = tmp_path / "a.parquet"
    first = parquet(path, [OPAQUE["rgb.png"]]).decode(0)
    before = pack(path)
    assert pack(path) == before
    second = parquet(path, [OPAQUE["gray.png"]]).decode(0)
    assert not torch.equal(first, second)
    assert not before.exists(), "what no parquet file answers to is removed"
    old = pack(path)
    os.utime(old, (1, 1))
    pack(path)
    assert old.stat().st_mtime > 1, "use keeps it"
    os.utime(old, (1, 1))
    parquet(tmp_path / "b.parquet", [OPAQUE["rgb.png"]])
    assert not old.exists(), "unused for long"


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ASHNETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"a\.parquet cannot be unpacked to .*file/images .*ASHNETS_CACHE"):
        parquet(tmp_path / "a.parquet", [OPAQUE["rgb.png"]])


def test_a_cache_that_can_only_be_read_serves(tmp_path, cache, no_power_over_files):
    first = parquet(tmp_path / "a.parquet", [OPAQUE["rgb.png"]]).decode(0)
    folder = cache / "images"
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o555 if path == folder else 0o444)
    with no_power_over_files():
        assert torch.equal(Pairs(open_source(tmp_path / "a.parquet", 0), ["train"], 16).decode(0), first)
    folder.chmod(0o755)


def test_damage_inside_a_parquet_file_is_named(tmp_path, cache):
    """Its end is complete, so it can be opened; a page of the images is overwritten."""
    path = tmp_path / "a.parquet"
    parquet(path, [encoded(Image.fromarray(noise(16, 16, 4, seed=i))) for i in range(40)])
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    source = open_source(path, 0)
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        Pairs(source, ["train"], 16)
    assert not list((cache / "images").glob("*.part"))


MEMORY = """
import sys
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source

def own() -> int:
    status = open("/proc/self/status").read()
    return int(status.partition("RssAnon:")[2].split()[0]) // 1024

pairs = Pairs(open_source(sys.argv[1], 0), ["train"], 64)
for i in range(40): pairs.decode(i)
first = own()
for i in range(40, len(pairs)): pairs.decode(i)
print(own() - first)
"""


def test_memory_does_not_grow_with_the_images_decoded(tmp_path):
    """440 images of 87 MB, encoded and decoded; the process keeps nothing. Mapped pages belong to the system."""
    images = [encoded(Image.fromarray(noise(256, 256, 3, seed=i)), compress_level=0) for i in range(440)]
    parquet(tmp_path / "a.parquet", images, row_group_size=50)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "a.parquet")]
    grown = int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert grown < 25, f"{grown} MB"
