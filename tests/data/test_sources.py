"""Sources: the same images in every form, splits, hold-out, refused input; `ashnets data check`."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ashnets.cli import main
from ashnets.data.checking import check_source
from ashnets.data.pairs import Pairs
from ashnets.data.sources.opening import open_source
from ashnets.data.sources.parquet import split_of_file
from ashnets.data.sources.rows import path_inside
from ashnets.errors import ConfigurationError, DataError


def png(seed: int, side: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


FILES = {f"{split}/p{i}.png": png(i) for split, these in (("train", range(5)), ("valid", (5, 6))) for i in these}
CAPTIONS = {file: [f"image {i}", f"the {i}th, with a comma", "“quoted” ünï"] for i, file in enumerate(FILES)}
ROWS = [{"image_id": file, "split": file.split("/")[0], "captions": captions} for file, captions in CAPTIONS.items()]


def images(folder: Path) -> Path:
    for file, data in FILES.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    return folder


def sidecars(folder: Path) -> Path:
    for file, captions in CAPTIONS.items():
        (images(folder) / file).with_suffix(".txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    return folder


def metadata_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"file_name": row["image_id"], **row}) for row in ROWS]
    (images(folder) / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def metadata_of_each_split(folder: Path) -> Path:
    for split in ("train", "valid"):
        lines = [
            json.dumps({"file_name": Path(row["image_id"]).name, "captions": row["captions"]})
            for row in ROWS
            if row["split"] == split
        ]
        (images(folder) / split / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def metadata_csv(folder: Path) -> Path:
    with open(images(folder) / "metadata.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "captions"])
        writer.writerows([row["image_id"], json.dumps(row["captions"])] for row in ROWS)
    return folder


def one_parquet(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "all.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "image": FILES[row["image_id"]]} for row in ROWS]), path)
    return path


def parquet_files_by_name(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"image_id": row["image_id"], "captions": row["captions"], "image": FILES[row["image_id"]]} for row in ROWS]
    parts = {"train-00000-of-00002": rows[:3], "train-00001-of-00002": rows[3:5], "validation": rows[5:]}
    for name, part in parts.items():
        pq.write_table(pa.Table.from_pylist(part), folder / f"{name}.parquet", row_group_size=2)
    return folder


def parquet_with_paths(folder: Path) -> Path:
    rows = [{"image_path": row["image_id"], **row} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), images(folder) / "all.parquet")
    return folder / "all.parquet"


def parquet_of_datasets(folder: Path) -> Path:
    """The format of the library `datasets` for an Image column: a struct of bytes and path."""
    features = datasets.Features(
        image=datasets.Image(),
        image_id=datasets.Value("string"),
        split=datasets.Value("string"),
        captions=datasets.List(datasets.Value("string")),
    )
    rows = [{"image": {"bytes": FILES[row["image_id"]], "path": None}, **row} for row in ROWS]
    folder.mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "all.parquet")
    assert pa.types.is_struct(pq.read_schema(folder / "all.parquet").field("image").type)
    return folder


FORMS: list[Callable[[Path], Path]] = [
    sidecars,
    metadata_jsonl,
    metadata_of_each_split,
    metadata_csv,
    one_parquet,
    parquet_files_by_name,
    parquet_with_paths,
    parquet_of_datasets,
]


def contents(pairs: Pairs) -> dict[str, tuple]:
    return {
        name: (pairs.names[i], pairs.captions_of(i), pairs.decode(i).numpy().tobytes())
        for i, name in enumerate(pairs.image_ids)
    }


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_pairs(form, tmp_path):
    """Pillow decodes the original images; the captions are unchanged."""
    source = open_source(form(tmp_path / "data"))
    assert source.splits == ["train", "valid"] and source.left_out == 0
    assert source.kind == ("parquet" if "parquet" in form.__name__ else "folder")
    for split in source.splits:
        pairs = Pairs(source, [split], 16)
        expected = {
            file: (captions[0], captions, np.array(Image.open(io.BytesIO(FILES[file]))).transpose(2, 0, 1).tobytes())
            for file, captions in CAPTIONS.items()
            if file.startswith(split)
        }
        assert contents(pairs) == expected
        assert len(set(pairs.samples.tolist())) == len(pairs), "without a concept each image is a sample of its own"


def test_a_corpus(corpus, write_corpus, tmp_path):
    source = open_source(corpus)
    assert (source.kind, source.splits) == ("corpus", ["train", "valid"])
    assert [source.split(split).num_rows for split in ("train", "valid", "validation")] == [27, 6, 6]
    row = {"image": png(0), "image_id": "a", "concept": "1", "name": "man beard", "captions": ["man with a beard"]}
    source = open_source(write_corpus(tmp_path / "c", {"train": [row, {**row, "image_id": "b"}]}), hold_out=0)
    assert Pairs(source, ["train"], 8).captions_of(0) == ["man with a beard"], "a corpus speaks the name first"


def test_a_corpus_that_is_not_what_its_manifest_says(write_corpus, tmp_path):
    row = {"image": png(0), "captions": ["a"]}
    folder = write_corpus(tmp_path / "c", {"train": [row, row], "valid": [row]})
    manifest = json.loads((folder / "manifest.json").read_text())
    for change, says in [
        ({"rows": 3}, r"valid\.parquet has 1 rows, the manifest says 3"),
        ({"file": "../valid.parquet"}, r"manifest\.json, split 'valid': the path '\.\./valid\.parquet' leaves"),
        ({"file": "gone.parquet"}, r"gone\.parquet is missing"),
    ]:
        splits = {**manifest["splits"], "valid": {**manifest["splits"]["valid"], **change}}
        (folder / "manifest.json").write_text(json.dumps({**manifest, "splits": splits}))
        with pytest.raises(DataError, match=says):
            open_source(folder)


def test_names_and_concepts(tmp_path):
    rows = [
        {"image": png(0), "name": "Apple", "caption": "a red one", "concept": "x", "split": "test"},
        {"image": png(1), "name": "apple", "caption": "Apple", "concept": "x", "split": "test"},
        {"image": png(2), "name": None, "caption": " a pear ", "concept": None, "split": "test"},
        {"image": png(3), "name": "fig", "caption": None, "concept": "w", "split": "test"},
        {"image": png(4), "name": "", "caption": "a plum", "concept": None, "split": "test"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "fruit.parquet")
    pairs = Pairs(open_source(tmp_path / "fruit.parquet"), ["test"], 8)
    assert pairs.names == ["Apple", "apple", "a pear", "fig", "a plum"]
    assert [pairs.captions_of(i) for i in range(5)] == [
        ["Apple", "a red one"],
        ["Apple"],
        ["a pear"],
        ["fig"],
        ["a plum"],
    ]
    samples = pairs.samples.tolist()
    assert samples[0] == samples[1] and len(set(samples)) == 4 and pairs.samples.dtype == torch.int64
    assert pairs.image_ids == [f"fruit.parquet#{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train.parquet", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "train"),
        ("validation.parquet", "valid"),
        ("val_3.parquet", "valid"),
        ("Valid-part-1.parquet", "valid"),
        ("test-twitter-seen.parquet", "test-twitter-seen"),
        ("default/test/0000.parquet", "test"),
        ("0000.parquet", "train"),
        ("training_words.parquet", "training_words"),
        ("validated.parquet", "train"),
        ("trains.parquet", "train"),
    ],
)
def test_splits_of_files(file, split):
    assert split_of_file(file) == split


def captioned(folder: Path, count: int, order: int = 0) -> Path:
    """A folder whose metadata has a given order."""
    lines = [json.dumps({"file_name": f"{i:03}.png", "text": f"number {i}"}) for i in range(count)]
    random.Random(order).shuffle(lines)
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"{i:03}.png").write_bytes(png(0))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def held_out(folder: Path, share: float) -> set[str]:
    source = open_source(folder, share)
    return set(source.split("valid")["image_id"].to_pylist()) if "valid" in source.splits else set()


def test_the_hold_out_follows_the_ids_alone(tmp_path):
    chosen = held_out(captioned(tmp_path / "a", 100), 0.25)
    assert len(chosen) == 25
    assert chosen == held_out(captioned(tmp_path / "a", 100, order=1), 0.25)
    assert chosen < held_out(tmp_path / "a", 0.4), "a larger share holds the smaller"
    train = set(open_source(tmp_path / "a", 0.25).split("train")["image_id"].to_pylist())
    assert not train & chosen and len(train) == 75
    assert held_out(tmp_path / "a", 0) == set()
    assert len(held_out(captioned(tmp_path / "b", 2), 0.001)) == len(held_out(tmp_path / "b", 0.999)) == 1
    with pytest.raises(DataError, match=r"one training image.*Add images"):
        open_source(captioned(tmp_path / "c", 1))
    for share in (-0.1, 1, float("nan")):
        with pytest.raises(ConfigurationError, match="hold_out"):
            open_source(tmp_path / "a", share)


@pytest.mark.parametrize(("images", "held"), [(9, 1), (48, 9), (260, 50), (1000, 50), (1200, 60)])
def test_a_small_folder_holds_out_enough_to_measure(images, held, tmp_path):
    """By hand: a twentieth, but 50 where these are no more than a fifth, else a fifth."""
    rows = [{"image_id": str(i), "image_path": "a.png", "text": f"number {i}"} for i in range(images)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.png").write_bytes(png(0))
    assert len(held_out(tmp_path, 0.05)) == held


def test_missing_images_are_counted_and_three_are_named(tmp_path):
    folder = captioned(tmp_path / "a", 8)
    for i in range(5):
        (folder / f"{i:03}.png").unlink()
    with pytest.raises(DataError, match=r"5 images are missing: .*jsonl, line \d+: 00\d.png; .*and 2 more") as info:
        open_source(folder)
    assert str(info.value).count("line") == 3


def test_images_without_captions_are_counted_and_three_are_named(tmp_path):
    folder = sidecars(tmp_path / "a")
    for i in range(2):
        (folder / f"train/p{i}.txt").unlink()
        (folder / f"train/p{i + 2}.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"4 of 7 images have no captions: train/p0.png, .*and 1 more.*train/p0.txt"):
        open_source(folder)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "train/p0.png", "text": "one"}))
    assert open_source(folder, 0).left_out == 6


LINE = {"file_name": "000.png", "text": "a text"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"file_name": "000.png"', r"metadata\.jsonl, line 2 is not valid JSON"),
        ('["000.png"]', r"line 2 is '\[\"000\.png\"\]'; each line must be one JSON object"),
        (json.dumps({"text": "a"}), r"line 2: the image's path is None; .*file_name"),
        (json.dumps({"file_name": 3, "text": "a"}), r"line 2: the image's path is 3"),
        (json.dumps({"file_name": "001.png"}), r"line 2: the image has no caption"),
        (json.dumps({"file_name": "001.png", "captions": ["", "  "]}), r"line 2: the image has no caption"),
        (json.dumps({"file_name": "001.png", "captions": ["a", 3]}), r"line 2: key 'captions' is \['a', 3\]"),
        (json.dumps({"file_name": "001.png", "text": {"a": 1}}), r"line 2: key 'text' is \{'a': 1\}"),
        (json.dumps({"file_name": "001.png", "text": "a", "concept": 1.5}), r"line 2: key 'concept' is 1\.5"),
        (json.dumps(LINE), r"image_id '000\.png' occurs twice"),
        (json.dumps({**LINE, "file_name": "../../etc/passwd"}), r"line 2: the path '\.\./\.\./etc/passwd' leaves"),
        (json.dumps({**LINE, "file_name": "/etc/passwd"}), r"line 2: the path '/etc/passwd' leaves"),
        (json.dumps({**LINE, "file_name": "a\0b.png"}), r"1 image is missing"),
    ],
)
def test_a_bad_line_is_named(line, says, tmp_path):
    folder = captioned(tmp_path / "a", 3)
    (folder / "metadata.jsonl").write_text(json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(DataError, match=says):
        open_source(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,text\n000.png,a\n", r"line 1: the columns are \['image', 'text'\]"),
        ("file_name,text\n000.png,one,two\n", r"line 2 has more or fewer fields than the 2"),
        ("file_name,text\n000.png\n", r"line 2 has more or fewer"),
        ("file_name,text\n000.png,\n", r"line 2: the image has no caption"),
        ('file_name,captions\n000.png,"[1"\n', r"line 2: key 'captions' is not a JSON list"),
        ('file_name,text\n000.png,"a"b"\n', r"line 2 is not valid CSV"),
        ("file_name,text\n", "contains no rows"),
        ("", r"line 1: the columns are None"),
    ],
)
def test_a_bad_csv_is_named(text, says, tmp_path):
    folder = captioned(tmp_path / "a", 3)
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        open_source(folder)


@given(st.text(min_size=1))
def test_no_path_leaves_its_folder(name):
    try:
        inside = path_inside(name, "here")
    except DataError:
        return
    folder = Path("/folder")
    assert (folder / inside).is_relative_to(folder) and ".." not in (folder / inside).parts


OUTSIDE = ["..", "a/../../b", "..\\b.png", "C:\\b.png", "C:b.png", "//host/b.png", "\\b.png", "", " "]


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_that_leave_the_folder_are_refused(name):
    with pytest.raises(DataError, match="here: the "):
        path_inside(name, "here")


def test_both_metadata_files_and_other_texts(tmp_path):
    folder = captioned(tmp_path / "a", 3)
    (folder / "metadata.csv").write_text("file_name,text\n000.png,a\n")
    with pytest.raises(DataError, match=r"contains metadata\.jsonl and metadata\.csv"):
        open_source(folder)
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"metadata\.jsonl cannot be read .* UTF-8"):
        open_source(folder)


SURROGATE = "a half \ud83d of an emoji"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("text", SURROGATE, r"line 2: key 'text' is 'a half \\ud83d of an emoji', which is"),
        ("captions", ["whole", SURROGATE], r"line 2: key 'captions' is 'a half"),
        ("name", SURROGATE, r"line 2: key 'name' is"),
        ("image_id", SURROGATE, r"line 2: key 'image_id' is"),
        ("concept", SURROGATE, r"line 2: key 'concept' is"),
        ("split", SURROGATE, r"line 2: key 'split' is"),
    ],
    ids=["text", "captions", "name", "image_id", "concept", "split"],
)
def test_texts_that_are_no_unicode_are_named(key, value, says, tmp_path):
    folder = captioned(tmp_path / "a", 3)
    line = {"file_name": "001.png", "text": "a", key: value}
    (folder / "metadata.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=rf"metadata\.jsonl, {says}.*not valid Unicode \(character \d+ is \\ud83d"):
        open_source(folder)


def test_file_names_that_are_no_unicode_are_named(tmp_path, capsys):
    """File names are bytes; names in Latin-1 are not UTF-8."""
    folder = sidecars(tmp_path / "a")
    for suffix in ("png", "txt"):
        os.rename(folder / f"train/p1.{suffix}", os.fsencode(folder / "train") + b"/caf\xe9." + suffix.encode())
    assert main(["data", "check", str(folder), "--quiet"]) == 4
    said = capsys.readouterr().err
    assert "caf\N{REPLACEMENT CHARACTER}.txt: the image's path is 'train/caf\\udce9.png'" in said
    assert said.endswith("Rename the file.\n") and len(said.splitlines()) == 1


def test_a_parquet_whose_text_is_no_unicode(tmp_path):
    text = pa.array([b"a caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"image": [png(0)], "caption": text}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet is damaged .*can't decode byte 0xe9"):
        open_source(tmp_path / "a.parquet")


def test_captions_beside_images_end_where_lines_of_tables_end(tmp_path):
    """Only at line feeds and carriage returns, not at the other characters of Python's splitlines."""
    folder = sidecars(tmp_path / "a")
    odd = "one\u2028line\x85of\x0ca\x0btext\x1c!"
    (folder / "train/p0.txt").write_bytes(f"{odd}\r\nsecond\rthird\n\n".encode())
    rows = {row["file"]: row["captions"] for row in open_source(folder, 0).rows.to_pylist()}
    assert rows["train/p0.png"] == [odd, "second", "third"]
    (folder / "metadata.jsonl").write_text(
        json.dumps({"file_name": "train/p0.png", "captions": [odd, "second", "third"]}, ensure_ascii=False),
        encoding="utf-8",
    )
    assert open_source(folder, 0).rows["captions"].to_pylist() == [rows["train/p0.png"]]


def test_what_cannot_be_read_is_named_and_other_files_are_counted(tmp_path, capsys, caplog, ordinary_rights):
    folder = sidecars(tmp_path / "a")
    for name in ("b.heic", "c.HEIC", "d.psd"):
        (folder / name).touch()
    (folder / "e.jfif").write_bytes((folder / "train/p0.png").read_bytes())
    (folder / "e.txt").write_text("a JPEG by its name")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "locked").mkdir(mode=0)
    assert main(["data", "check", str(folder), "--quiet", "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["passed over"] == {".heic": 2, ".psd": 1}
    assert (found["corrupt"], found["unreadable"]) == (0, 2)
    assert found["reasons"] == [
        f"{folder}/locked cannot be read (Permission denied)",
        f"{folder}/pipe.jpg is a named pipe, not a file",
    ]
    assert caplog.messages == [f"left out, 2 in all: {'; '.join(found['reasons'])}"]
    assert sum(split["images"] for split in found["splits"].values()) == 8
    line = {"file_name": "pipe.jpg", "text": "a"}
    (folder / "metadata.jsonl").write_text(json.dumps(line))
    with pytest.raises(DataError, match=r"1 image is missing: .*line 1: pipe.jpg \(a named pipe\)"):
        open_source(folder)


def test_nothing_there(tmp_path):
    for path, says in [
        (tmp_path / "none", "does not exist"),
        (tmp_path, "contains neither images nor parquet files"),
        (Path(__file__), "is a file of another kind"),
    ]:
        with pytest.raises(DataError, match=f"{says}.*metadata.jsonl"):
            open_source(path)
    for name, words in (("pictograms", "pictograms"), ("pictograms-openclipart", "pictograms --with openclipart")):
        build = f"does not exist. To build it: `ashnets data {words} --output {tmp_path / name}`. Give a corpus"
        with pytest.raises(DataError, match=re.escape(build)):
            open_source(tmp_path / name)
    with pytest.raises(DataError, match=r"^https://example.org/cats does not exist"):
        open_source(Path("https://example.org/cats"))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.png").write_bytes(png(0))
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves behind")
    with pytest.raises(DataError, match="contains neither"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="no split 'test'; there are train, valid"):
        open_source(captioned(tmp_path / "a", 3)).split("test")


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.99])
def test_a_truncated_parquet(keep, tmp_path):
    path = one_parquet(tmp_path / "a")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"all\.parquet is damaged or cut short"):
        open_source(path)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image": "text", "caption": "a"}, "column 'image' contains string"),
        ({"img": b"", "caption": "a"}, "no column 'image', 'image_path' or 'file_name'; it has img, caption"),
        ({"image": b"", "words": "a"}, "no column 'captions', 'caption', 'text'; it has image, words"),
        ({"image": b"", "caption": ""}, "row 0: the image has no caption"),
        ({"image": b"", "caption": 3}, "row 0: key 'caption' is 3"),
        ({"image_path": "../a.png", "caption": "a"}, "row 0: the path '../a.png' leaves"),
        ({"image_path": "a.png", "caption": "a"}, "1 image is missing: a.parquet, row 0: a.png"),
    ],
)
def test_a_bad_parquet_is_named(row, says, tmp_path):
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=says):
        open_source(tmp_path / "a.parquet")


def test_repeated_ids_across_files(tmp_path):
    for name, ids in {"train": ["a", "b"], "valid": ["c", "b"]}.items():
        rows = [{"image": png(0), "text": "t", "image_id": one} for one in ids]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"'b' occurs twice \(train.parquet, row 1 and valid.parquet, row 1\)"):
        open_source(tmp_path)


def damaged_folder(folder: Path, bad: int) -> Path:
    folder = captioned(folder, 30)
    for i in range(bad):
        (folder / f"{i:03}.png").write_bytes(png(0)[:200])
    return folder


def test_check_counts_what_it_finds(tmp_path):
    found = check_source(one_parquet(tmp_path / "a"), progress=False)
    assert found["splits"] == {
        "train": {"images": 5, "captions per image": 3.0, "concepts": 5},
        "valid": {"images": 2, "captions per image": 3.0, "concepts": 2},
    }
    assert (found["kind"], found["left out"], found["corrupt"], found["reasons"]) == ("parquet", 0, 0, [])


def test_check_on_the_command_line(tmp_path, capsys):
    assert main(["data", "check", str(captioned(tmp_path / "good", 30)), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "kind: folder" in out and "corrupt: 0" in out
    assert "  train: images 24, captions per image 1, concepts 24" in out.splitlines()

    folder = str(damaged_folder(tmp_path / "bad", 23))
    assert main(["data", "check", folder, "--quiet"]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert "corrupt: 23" in lines and lines[-1] == "  and 3 more"
    named = [line for line in lines if line.startswith("  image '0")]
    assert len(named) == 20 and all("damaged or cut short" in line for line in named)

    assert main(["data", "check", folder, "--json", "--quiet"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["corrupt"] == 23 and len(found["reasons"]) == 20

    assert main(["data", "check", str(tmp_path / "none")]) == 4
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(("written", "title"), [({"title": "drawings"}, "drawings"), ({}, ""), ({"title": 3}, "")])
def test_the_manifest_names_a_corpus(write_corpus, tmp_path, written, title):
    folder = write_corpus(tmp_path / "corpus", {"train": [{"image": png(0), "captions": ["a"]}]})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("title", None)
    (folder / "manifest.json").write_text(json.dumps({**manifest, **written}))
    assert open_source(folder, hold_out=0).title == title
