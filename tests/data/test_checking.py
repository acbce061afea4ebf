"""`ashnets data check DATASET PATH`: found, missing and damaged files, and the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from ashnets.cli import main
from ashnets.data.benchmarks import BENCHMARKS
from ashnets.data.checking import check_benchmark
from ashnets.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))
import benchmark_files as small


@pytest.mark.parametrize("name", small.WRITERS)
def test_a_sound_benchmark_has_no_faults(name: str, tmp_path: Path) -> None:
    expected = small.WRITERS[name](tmp_path)
    names = {split: {p for record in records for p in record.images} for split, records in expected.items()}
    small.write_images(tmp_path / "images", set().union(*names.values()))
    found = check_benchmark(name, tmp_path, tmp_path / "images", progress=False)
    assert found["faults"] == {"broken": 0, "repeated": 0, "missing images": 0}
    assert found["reasons"] == []
    published = BENCHMARKS[name].published
    for split, records in expected.items():
        said = found["splits"][split]
        assert (said["records"], said["images"]) == (len(records), len(names[split]))
        assert said["published"] == published.get(split)
    absent = [f for f in BENCHMARKS[name].files if not any(path.match(f.name) for path in tmp_path.rglob("*"))]
    assert found["missing files"] == {file.name: {"splits": list(file.splits), "from": file.origin} for file in absent}


def test_each_kind_of_fault_is_counted_and_named(tmp_path: Path) -> None:
    small.nlvr2(tmp_path)
    path = tmp_path / "train.json"
    one, two = path.read_text().splitlines()
    path.write_text("\n".join([one, two, two, "{", one.replace("10171-0-0", "10171-1-0")]))
    pair_3 = {f"train/37/train-10171-3-img{side}.png" for side in (0, 1)}
    small.write_images(tmp_path / "images", {*pair_3, "train/37/train-10171-0-img0.png"})
    found = check_benchmark("nlvr2", tmp_path, progress=False)
    assert found["faults"] == {"broken": 1, "repeated": 1, "missing images": 3}
    assert found["splits"]["train"] == {"records": 3, "published": 86373, "images": 6, "missing images": 3}
    repeated, broken, *missing = found["reasons"]
    assert repeated == (
        f"{path}, line 3: identifier 'train-10171-3-1' occurs again here, first at {path}, line 2. "
        "Remove one of the two."
    )
    assert broken.startswith(f"{path}, line 4: it is not valid JSON")
    assert missing == [
        f"{path}, line 1: image train/37/train-10171-0-img1.png is missing or empty.",
        f"{path}, line 5: image train/37/train-10171-1-img0.png is missing or empty.",
        f"{path}, line 5: image train/37/train-10171-1-img1.png is missing or empty.",
    ]


def test_only_the_first_reasons_are_kept(tmp_path: Path) -> None:
    line = '{"identifier": "dev-%d-0-0", "label": "True", "sentence": "Yes."}'
    small.write(tmp_path / "dev.jsonl", [line % number for number in range(30)]).rename(tmp_path / "dev.json")
    found = check_benchmark("nlvr2", tmp_path, progress=False)
    assert found["faults"]["missing images"] == 60
    assert len(found["reasons"]) == 20


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"contains no complete split of VQA v2\. Missing: v2_OpenEnded.*visualqa|cvmlp/vqa"
    ):
        check_benchmark("vqa-v2", tmp_path, progress=False)


def test_the_command_on_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = small.easy_vqa(tmp_path)
    assert main(["data", "check", "easy-vqa", str(tmp_path), "--quiet"]) == 4
    out = capsys.readouterr().out
    assert "train: records 2, published 38575, images 2, missing images 2" in out
    assert "test/questions.json: splits test, from pip install easy-vqa==1.0" in out
    assert f"  {tmp_path}/data/train/questions.json, questions[0]: image train/images/0.png is missing or empty." in out
    small.write_images(tmp_path / "elsewhere", {record.image for record in expected["train"]})
    words = ["data", "check", "easy-vqa", str(tmp_path), "--images", str(tmp_path / "elsewhere"), "--json", "--quiet"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["missing images"] == 0


def test_the_command_tells_own_data_from_benchmarks(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "nlvr2"]) == 2
    assert "`ashnets data check nlvr2 PATH`" in capsys.readouterr().err
    assert main(["data", "check", "nlvr", str(tmp_path)]) == 2
    assert "Did you mean nlvr2?" in capsys.readouterr().err
    own = tmp_path / "nlvr2"
    small.write_images(own, {"a.png", "b.png"})
    for name in "ab":
        (own / f"{name}.txt").write_text(f"image {name}\n")
    assert main(["data", "check", "nlvr2", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "folder"
    assert main(["data", "check", "nlvr2", "--images", str(own)]) == 2
    assert "--images is only for benchmarks" in capsys.readouterr().err


def test_the_same_pixels_and_strange_formats_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files of one image under two captions, a copy in another format, and formats that are not read."""
    drawing = Image.effect_mandelbrot((40, 30), (-2, -1.5, 1, 1.5), 20).convert("RGB")
    for name, caption in {"a.png": "a red car", "b.bmp": "a blue car", "c.png": "a red car", "d.png": "a dog"}.items():
        image = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if name == "d.png" else drawing
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "valid").mkdir(exist_ok=True)
        folder = tmp_path / ("valid" if name == "c.png" else "train")
        image.save(folder / name)
        (folder / name).with_suffix(".txt").write_text(caption)
    for name in ("e.heic", "f.HEIC", "g.svg", "h.doc"):
        (tmp_path / name).write_bytes(b"?")
    assert main(["data", "check", str(tmp_path), "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["duplicates"] == {"images": 2, "with other captions": 1, "across splits": 1}
    assert found["notes"] == [
        "same pixels: train/a.png and train/b.bmp, under other captions: 'a red car' and 'a blue car'",
        "same pixels: train/a.png and valid/c.png, in splits train and valid",
        "2 .heic, 1 .svg: images in formats that are not read; convert them to .jpg or .png",
    ]
    assert main(["data", "check", str(tmp_path), "--quiet"]) == 0
    assert "  note: same pixels: train/a.png and train/b.bmp" in capsys.readouterr().out
