"""Readers: records of small files with the published names and keys, and of real annotations of NLVR2."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from ashnets.data.benchmarks import BENCHMARKS, Benchmark, Record, open_benchmark
from ashnets.data.benchmarks.faults import Faults
from ashnets.data.benchmarks.files import json_elements
from ashnets.errors import ConfigurationError, DataError

sys.path.insert(0, str(Path(__file__).parent))
import benchmark_files as small


def test_every_reader_has_a_small_benchmark() -> None:
    assert set(small.WRITERS) == set(BENCHMARKS)


@pytest.mark.parametrize("name", small.WRITERS)
def test_records_are_what_the_files_say(name: str, tmp_path: Path) -> None:
    expected = small.WRITERS[name](tmp_path)
    benchmark = open_benchmark(name, tmp_path)
    assert sorted(benchmark.splits) == sorted(expected)
    for split, records in expected.items():
        assert benchmark.records(split) == records
    together: dict[str, list[Record]] = defaultdict(list)
    for split, _, record in benchmark.located(benchmark.splits, Faults()):
        together[split].append(record)
    assert together == {split: records for split, records in expected.items() if records}


@pytest.mark.parametrize("name", small.WRITERS)
def test_images_are_found_where_their_makers_put_them_and_elsewhere(name: str, tmp_path: Path) -> None:
    records = [record for split in small.WRITERS[name](tmp_path / "here").values() for record in split]
    names = {image for record in records for image in record.images}
    for folder in BENCHMARKS[name].image_folders:
        elsewhere = tmp_path / "elsewhere" / (folder.replace("/", "-") or "root")
        small.write_images(elsewhere / folder, names)
        benchmark = open_benchmark(name, tmp_path / "here", elsewhere)
        assert all(benchmark.image_path(image) == elsewhere / folder / image for image in names)
        assert benchmark.open_image(min(names)).size == (16, 12)


def test_an_absent_or_empty_image_is_named_with_its_origin(tmp_path: Path) -> None:
    small.coco_qa(tmp_path)
    benchmark = open_benchmark("coco-qa", tmp_path)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"COCO_val2014_000000000042\.jpg is missing or empty .*images\.cocodataset"
        ):
            benchmark.open_image(small.COCO_42)
        (tmp_path / small.COCO_42).parent.mkdir(exist_ok=True)
        (tmp_path / small.COCO_42).touch()


def test_real_annotations_of_nlvr2(repository: Path) -> None:
    folder = repository / "tests" / "data" / "nlvr2"
    benchmark = open_benchmark("nlvr2", folder)
    assert benchmark.splits == ["dev", "test1"]
    for split, count in (("dev", 24), ("test1", 23)):
        lines = [json.loads(line) for line in (folder / f"{split}.json").read_text().splitlines()]
        records = benchmark.records(split)
        assert len(records) == count
        assert [(r.id, r.sentence, str(r.label)) for r in records] == [
            (line["identifier"], line["sentence"], line["label"]) for line in lines
        ]
    assert benchmark.records("dev")[0].images == ("dev/dev-850-0-img0.png", "dev/dev-850-0-img1.png")


def test_reading_one_split_does_not_need_the_others(tmp_path: Path) -> None:
    small.coco_captions(tmp_path)
    path = tmp_path / "dataset_coco.json"
    document = json.loads(path.read_text())
    document["images"][1]["sentences"] = "damaged"
    small.write(path, document)
    benchmark = open_benchmark("coco-captions", tmp_path)
    assert len(benchmark.records("test")) == 1
    with pytest.raises(DataError, match=r"dataset_coco\.json, images\[1\]: key 'sentences' is 'damaged'"):
        benchmark.records("train")


def test_a_long_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elements = [{"text": "ü" * n, "list": [1, 2, {"a": None}]} for n in range(40)]
    path = tmp_path / "long.json"
    for chunk in (1, 2, 7, 64):
        for indent in (None, 2):
            path.write_text("\ufeff\n" + json.dumps(elements, indent=indent, ensure_ascii=False), encoding="utf-8")
            monkeypatch.setattr("ashnets.data.benchmarks.files._CHUNK", chunk)
            assert [element for _, element in json_elements(path, Faults())] == elements


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("nlvr2", "val", r"NLVR2 has no split 'val'; there are train, dev"),
        ("nlvr2", "test1", r"test1\.json is missing\. Download it from https://github\.com/lil-lab/nlvr"),
        (
            "vqa-v2",
            "train",
            r"v2_OpenEnded_mscoco_train2014_questions\.json is missing.*v2_Questions_Train_mscoco\.zip",
        ),
    ],
)
def test_what_is_not_there_is_said_at_once(name: str, split: str, message: str, tmp_path: Path) -> None:
    small.WRITERS[name](tmp_path)
    with pytest.raises(DataError, match=message):
        open_benchmark(name, tmp_path).read(split)


def test_unknown_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no benchmark 'nlvr'\. Did you mean nlvr2\?"):
        open_benchmark("nlvr", tmp_path)
    with pytest.raises(DataError, match="nowhere is not a folder"):
        open_benchmark("nlvr2", tmp_path / "nowhere")


def test_what_readers_state_of_themselves_fits() -> None:
    for reader in BENCHMARKS.values():
        assert isinstance(reader, type) and issubclass(reader, Benchmark)
        assert reader.default_split in reader.all_splits()
        assert set(reader.published) <= set(reader.all_splits())
        assert len({file.name for file in reader.files}) == len(reader.files)
