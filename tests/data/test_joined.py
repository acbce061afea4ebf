"""COCO and Visual Genome as one corpus: hand-made files with every kind of overlap."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ashnets.data.batches import plan_epoch
from ashnets.data.joined import open_joined
from ashnets.data.pairs import Pairs
from ashnets.data.similar import random_groups
from ashnets.errors import ConfigurationError, DataError
from ashnets.files import write_json

FOLDERS = {"coco-captions": "coco", "visual-genome": "genome"}
SPLITS = {1: "train", 2: "train", 3: "restval", 4: "val", 5: "test", 6: "train"}
# id → COCO id, Flickr id, regions
GENOME: dict[int, tuple[int | None, int | None, list[str]]] = {
    11: (1, 800, ["a red hat", "the sky"]),  # in both
    12: (4, None, ["out: COCO val"]),
    13: (5, None, ["out: COCO test"]),
    14: (99, None, ["out: no image of Karpathy's"]),
    15: (None, 700, ["out: Flickr30K test"]),
    16: (None, None, ["a lamp", "", "a left hand"]),
    17: (2, None, ["out: COCO 2 is Flickr30K's 700"]),
    18: (3, None, []),  # no region
    19: (6, None, ["in both again"]),
    20: (6, None, ["and a third time"]),
}


def paint(path: Path, color: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), (color, 0, 0)).save(path)


def coco_file(number: int) -> str:
    part = "train2014" if SPLITS[number] == "train" else "val2014"
    return f"{part}/COCO_{part}_{number:012d}.jpg"


@pytest.fixture
def sets(tmp_path) -> Path:
    images, official = [], []
    for number, split in SPLITS.items():
        folder, _, name = coco_file(number).partition("/")
        sentences = [{"raw": f"caption {i} of {number}", "sentid": 10 * number + i} for i in range(2)]
        images.append({"filepath": folder, "filename": name, "cocoid": number, "split": split, "sentences": sentences})
        flickr = 700 if number == 2 else 900 + number
        url = f"http://farm4.staticflickr.com/3153/{flickr}_164f0c0b83_z.jpg"
        official.append({"id": number, "file_name": name, "flickr_url": url})
        paint(tmp_path / "coco" / coco_file(number), number)
    write_json(tmp_path / "coco" / "dataset_coco.json", {"images": images})
    write_json(tmp_path / "coco" / "annotations" / "captions_train2014.json", {"images": official, "annotations": []})
    flickr30k = [
        {"filename": f"{number}.jpg", "imgid": i, "split": split, "sentences": [{"raw": "x", "sentid": i}]}
        for i, (number, split) in enumerate([(700, "test"), (800, "train")])
    ]
    write_json(tmp_path / "coco" / "dataset_flickr30k.json", {"images": flickr30k})
    regions, data = [], []
    for number, (coco_id, flickr_id, phrases) in GENOME.items():
        box = {"x": 0, "y": 0, "width": 1, "height": 1, "image_id": number}
        own = [{**box, "region_id": 100 * number + i, "phrase": phrase} for i, phrase in enumerate(phrases)]
        regions.append({"id": number, "regions": own})
        data.append({"image_id": number, "coco_id": coco_id, "flickr_id": flickr_id, "url": ""})
        paint(tmp_path / "genome" / f"VG_100K{'_2' if number % 2 else ''}" / f"{number}.jpg", number)
    write_json(tmp_path / "genome" / "region_descriptions.json", regions)
    write_json(tmp_path / "genome" / "image_data.json", data)
    return tmp_path


def test_each_image_is_one_sample_and_no_test_image_is_left(sets):
    source, counts = open_joined(FOLDERS, sets)
    rows = {row["image_id"]: row for row in source.rows.to_pylist()}
    assert {name: row["captions"] for name, row in rows.items()} == {
        coco_file(1): ["caption 0 of 1", "caption 1 of 1", "a red hat", "the sky"],
        coco_file(3): ["caption 0 of 3", "caption 1 of 3"],
        coco_file(4): ["caption 0 of 4", "caption 1 of 4"],
        coco_file(6): ["caption 0 of 6", "caption 1 of 6", "in both again", "and a third time"],
        "visual-genome/16.jpg": ["a lamp", "a left hand"],
    }
    assert {name for name, row in rows.items() if row["split"] == "valid"} == {coco_file(4)}
    assert all(row["name"] == row["captions"][0] for row in rows.values())
    assert counts == {
        "images": {"COCO": 6, "Visual Genome": 9},
        "in both": 3,
        "left out": {
            "COCO test": 1,
            "Flickr30K val or test": 1,
            "Visual Genome, in COCO val": 1,
            "Visual Genome, in COCO test": 1,
            "Visual Genome, in COCO test2014 or test2015": 1,
            "Visual Genome, in Flickr30K val or test": 2,
        },
        "notes": [],
    }


def test_images_are_read_where_they_lie(sets):
    """The red of each image is its number; a JPEG may differ by one."""
    pairs = Pairs(open_joined(FOLDERS, sets)[0], ["train", "valid"], 8)
    for index, name in enumerate(pairs.image_ids):
        number = int(name.removesuffix(".jpg").split("_")[-1].split("/")[-1])
        assert abs(int(pairs.decode(index)[0, 4, 4]) - number) <= 1


def test_coco_alone_and_without_flickr30k(sets):
    (sets / "coco" / "dataset_flickr30k.json").unlink()
    source, counts = open_joined({"coco-captions": "coco"}, sets)
    assert source.split("train")["image_id"].to_pylist() == [coco_file(n) for n in (1, 2, 3, 6)]
    assert len(counts["notes"]) == 1 and "dataset_flickr30k.json is missing" in counts["notes"][0]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"visual-genome": "genome"}, "without coco-captions"),
        ({"coco-caption": "coco"}, "Did you mean coco-captions"),
        ({}, "corpus names nothing"),
    ],
)
def test_other_sets_are_refused(sets, folders, message):
    with pytest.raises(ConfigurationError, match=message):
        open_joined(folders, sets)


def test_missing_images_and_files(sets):
    (sets / "coco" / coco_file(3)).unlink()
    (sets / "genome" / "VG_100K" / "16.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 5 images are missing, val2014/COCO_val2014_000000000003.jpg"):
        open_joined(FOLDERS, sets)
    write_json(sets / "genome" / "image_data.json", [])
    with pytest.raises(DataError, match=r"image 11 is not in image_data.json"):
        open_joined(FOLDERS, sets)
    (sets / "genome" / "image_data.json").unlink()
    with pytest.raises(DataError, match=r"image_data.json is missing. Download it from .*image_data.json.zip"):
        open_joined(FOLDERS, sets)


@settings(max_examples=40, deadline=None)
@given(images=st.integers(8, 90), ranks=st.integers(1, 4), workers=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_sample_once_an_epoch(images, ranks, workers, seed):
    """A worker of a rank reads every ``workers``-th of the rank's micro-batches."""
    groups = random_groups(images, 4, seed)
    plan = plan_epoch(groups, 8 * ranks, ranks)
    seen = [
        plan[step][rank].indices
        for rank in range(ranks)
        for worker in range(workers)
        for step in range(worker, len(plan), workers)
    ]
    assert Counter(np.concatenate(seen).tolist()) == Counter(range(images))


def test_check_shows_what_was_joined(sets):
    from typer.testing import CliRunner

    from ashnets.cli.app import app

    (sets / "visual-genome").symlink_to(sets / "genome")
    shown = CliRunner().invoke(app, ["data", "check", "pretrain-coco-vg", str(sets), "--json"])
    found = json.loads(shown.stdout)
    assert shown.exit_code == 0
    assert found["in both"] == 3 and sum(found["left out"].values()) == 7
    assert found["splits"]["train"] == {"images": 4, "captions per image": 3.0}
    (sets / "coco" / coco_file(3)).unlink()
    shown = CliRunner().invoke(app, ["data", "check", "pretrain-coco-vg", str(sets)])
    assert shown.exit_code == DataError.exit_code
    assert "COCO_val2014_000000000003.jpg is missing" in shown.stdout
