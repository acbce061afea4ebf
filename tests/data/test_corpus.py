"""Reading corpora and galleries: the content is unchanged, and damage is one clear error."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ashnets.data.corpus import SCHEMA_VERSION, open_corpus, open_gallery
from ashnets.errors import DataError

ROWS = [{"image": bytes([i] * 30), "name": f"name {i}", "keywords": ["a", f"b{i}"]} for i in range(250)]


def write(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "train.parquet", row_group_size=100)
    digest = hashlib.sha256((folder / "train.parquet").read_bytes()).hexdigest()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "splits": {"train": {"file": "train.parquet", "rows": len(ROWS), "sha256": digest}},
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_rows_come_back(tmp_path):
    corpus = open_corpus(write(tmp_path / "c"), verify=True)
    split = corpus.split("train")
    assert corpus.splits == ["train"] and len(split) == 250
    assert split.columns == ["image", "name", "keywords"]
    assert split[0] == ROWS[0] and split[249] == ROWS[249] == split[-1] and split[-250] == ROWS[0]
    assert list(split) == ROWS
    assert split.column("name") == [row["name"] for row in ROWS]
    for outside in (250, -251):
        with pytest.raises(IndexError, match="250 rows"):
            split[outside]
    with pytest.raises(DataError, match="no column 'nmae'; it has image, name, keywords"):
        split.column("nmae")


def test_missing_things(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        open_corpus(tmp_path / "nowhere")
    folder = write(tmp_path / "c")
    with pytest.raises(DataError, match="no split 'test'; there are train"):
        open_corpus(folder).split("test")
    (folder / "train.parquet").unlink()
    with pytest.raises(DataError, match=r"train\.parquet is missing"):
        open_corpus(folder).split("train")
    with pytest.raises(DataError, match=r"train\.parquet is missing"):
        open_corpus(folder, verify=True)
    with pytest.raises(DataError, match=r"no manifest\.json"):
        open_corpus(folder / "manifest.json")


@pytest.mark.parametrize("keep", [0, 3, 200, 0.5, 0.99])
def test_truncated_parquet(tmp_path, keep):
    folder = write(tmp_path / "c")
    data = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match="damaged or cut short"):
        open_corpus(folder).split("train")
    with pytest.raises(DataError, match="sha256"):
        open_corpus(folder, verify=True)


def test_a_flipped_bit_is_found_by_verify(tmp_path):
    folder = write(tmp_path / "c")
    data = bytearray((folder / "train.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "train.parquet").write_bytes(data)
    with pytest.raises(DataError, match="has sha256"):
        open_corpus(folder, verify=True)


def test_rows_that_the_manifest_does_not_know(tmp_path):
    folder = write(tmp_path / "c", splits={"train": {"file": "train.parquet", "rows": 3, "sha256": ""}})
    with pytest.raises(DataError, match="has 250 rows, the manifest says 3"):
        open_corpus(folder).split("train")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": 99}, "schema_version is 99"),
        ({"schema_version": None}, "schema_version is None"),
        ({"splits": None}, "'splits' is missing"),
        ({"splits": {"train": {"rows": 3}}}, "'splits' is missing or damaged"),
    ],
)
def test_wrong_manifest(tmp_path, changes, says):
    with pytest.raises(DataError, match=says):
        open_corpus(write(tmp_path / "c", **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_damaged_manifest(tmp_path, text):
    folder = write(tmp_path / "c")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_corpus(folder)


def test_damaged_gallery(tmp_path):
    with pytest.raises(DataError, match="is not a gallery"):
        open_gallery(tmp_path)
    row = dict.fromkeys(["image_id", "concept", "name", "group"], "x")
    row |= {"file_name": "a.png", "captions": [], "split": "new"}
    (tmp_path / "a.png").write_bytes(b"image")
    for text, says in [
        ("", "is empty"),
        ("{", "line 1 is damaged"),
        ("[]", "line 1 is damaged"),
        (json.dumps({**row, "file_name": "b.png"}), r"b\.png is missing"),
        (json.dumps(row) + "\n" + json.dumps({"file_name": "a.png"}), "line 2 is damaged"),
    ]:
        (tmp_path / "metadata.jsonl").write_text(text)
        with pytest.raises(DataError, match=says):
            open_gallery(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    gallery = open_gallery(tmp_path)
    assert len(gallery) == 1 and gallery[0]["path"] == tmp_path / "a.png" and gallery.of("seen") == []


def test_reading_needs_no_torch():
    code = "import sys; from ashnets.data import corpus, images, pictograms; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "False"
