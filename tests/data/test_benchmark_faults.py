"""Damaged benchmarks: errors name broken, repeated or truncated entries by file and line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ashnets.data.benchmarks import BENCHMARKS, open_benchmark
from ashnets.data.benchmarks.faults import Faults
from ashnets.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))
import benchmark_files as small


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    small.write(path, document)


def change_line(path: Path, number: int, change: Callable[[str], str]) -> None:
    lines = path.read_text().split("\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_text("\n".join(lines), encoding="utf-8")


def first(document: Any, key: str) -> Any:
    return document[key][0]


CASES: list[tuple[str, str, str, Callable[[Path], None], str]] = [
    (
        "coco-captions",
        "train2014",
        "annotations/captions_train2014.json",
        lambda p: change_json(p, lambda d: first(d, "annotations").update(image_id=10)),
        r"captions_train2014\.json, annotations\[0\]: image_id 10 is not among the images",
    ),
    (
        "coco-captions",
        "train2014",
        "annotations/captions_train2014.json",
        lambda p: change_json(p, lambda d: d["annotations"][1].update(id=7)),
        r"annotations\[1\]: annotation id 7 occurs again here, first at .*json, annotations\[0\]",
    ),
    (
        "coco-captions",
        "train2014",
        "annotations/captions_train2014.json",
        lambda p: change_json(p, lambda d: d.update(annotations=[])),
        r"images\[0\]: image 9 has no caption",
    ),
    (
        "coco-captions",
        "test",
        "dataset_coco.json",
        lambda p: change_json(p, lambda d: first(d, "images").update(split="testing")),
        r"dataset_coco\.json, images\[0\]: key 'split' is 'testing'; it must be one of train, restval, val, test",
    ),
    (
        "coco-captions",
        "test",
        "dataset_coco.json",
        lambda p: change_json(p, lambda d: first(d, "images").update(filename="../secret.jpg")),
        r"images\[0\]: key 'filename' is '\.\./secret\.jpg'; it must be the path of an image inside",
    ),
    (
        "coco-captions",
        "test",
        "dataset_coco.json",
        lambda p: p.write_text(p.read_text()[:200]),
        r"dataset_coco\.json: line 1, column \d+: it is not valid JSON .* cut off",
    ),
    (
        "flickr30k",
        "all",
        "results.csv",
        lambda p: change_line(p, 3, lambda line: "1000092795.jpg| one| Friends ."),
        r"results\.csv, line 3: it is '1000092795\.jpg\| one\| Friends \.'; it must be a file name, a number",
    ),
    (
        "flickr30k",
        "all",
        "results.csv",
        lambda p: change_line(p, 3, lambda line: line.replace("| 1|", "| 0|")),
        r"results\.csv, line 3: comment \('1000092795\.jpg', 0\) occurs again here, first at .*results\.csv, line 2",
    ),
    (
        "flickr30k",
        "all",
        "results.csv",
        lambda p: change_line(p, 1, lambda line: "image,caption"),
        r"results\.csv, line 1: it is 'image,caption'",
    ),
    (
        "visual-genome",
        "all",
        "region_descriptions.json",
        lambda p: change_json(p, lambda d: d[0]["regions"][1].update(image_id=3)),
        r"element\[0\]: its regions name the images \[1, 3\]",
    ),
    (
        "visual-genome",
        "all",
        "region_descriptions.json",
        lambda p: p.write_text(p.read_text()[:-3]),
        r"element\[1\]: the file is cut off or no JSON here",
    ),
    (
        "visual-genome",
        "all",
        "region_descriptions.json",
        lambda p: p.write_text('{"1": []}'),
        r"it begins with '\{\"1\": \[\]\}'; it must be a list",
    ),
    (
        "vqa-v2",
        "val",
        "v2_OpenEnded_mscoco_val2014_questions.json",
        lambda p: change_json(p, lambda d: d["questions"][1].update(question_id=42000)),
        r"questions\[1\]: question_id 42000 occurs again here, first at .*questions\.json, questions\[0\]",
    ),
    (
        "vqa-v2",
        "val",
        "v2_OpenEnded_mscoco_val2014_questions.json",
        lambda p: change_json(p, lambda d: d["questions"][1].update(image_id=43)),
        r"questions\[1\]: question_id 42001 is about image 43, its annotation about 42",
    ),
    (
        "vqa-v2",
        "val",
        "v2_OpenEnded_mscoco_val2014_questions.json",
        lambda p: change_json(p, lambda d: d["questions"].pop()),
        r"annotations\[0\]: question_id 42001 is not among the questions",
    ),
    (
        "vqa-v2",
        "val",
        "v2_mscoco_val2014_annotations.json",
        lambda p: change_json(p, lambda d: d["annotations"].pop(0)),
        r"question_id 42001 has no annotation",
    ),
    (
        "vqa-v2",
        "val",
        "v2_mscoco_val2014_annotations.json",
        lambda p: change_json(p, lambda d: first(d, "annotations").update(question_id="42001")),
        r"annotations\[0\]: key 'question_id' is '42001'; it must be an integer",
    ),
    (
        "vqa-v2",
        "val",
        "v2_mscoco_val2014_annotations.json",
        lambda p: p.write_text('{"annotations": 3}'),
        r"it contains \{'annotations': 3\}; it must be a list, or an object",
    ),
    (
        "vqa-cp-v2",
        "train",
        "vqacp_v2_train_questions.json",
        lambda p: change_json(p, lambda d: d[0].update(coco_split="test2015")),
        r"questions\[0\]: key 'coco_split' is 'test2015'; it must be train2014 or val2014",
    ),
    (
        "vqa-cp-v2",
        "test",
        "vqacp_v2_test_questions.json",
        lambda p: change_json(p, lambda d: d["42000"].pop("question")),
        r"questions\['42000'\]: key 'question' is missing; there are \['coco_split', 'image_id', 'question_id'\]",
    ),
    (
        "coco-qa",
        "test",
        "test/types.txt",
        lambda p: change_line(p, 2, lambda line: "4"),
        r"questions\.txt, line 2: its type \(types\.txt\) is '4'; it must be 0",
    ),
    (
        "coco-qa",
        "test",
        "test/img_ids.txt",
        lambda p: change_line(p, 4, lambda line: "x"),
        r"questions\.txt, line 4: its image \(img_ids\.txt\) is 'x'",
    ),
    (
        "coco-qa",
        "test",
        "test/answers.txt",
        lambda p: p.write_text("food\n"),
        r"four files must have equally many lines, but have: questions\.txt 4, answers\.txt 1",
    ),
    (
        "nlvr2",
        "train",
        "train.json",
        lambda p: change_line(p, 2, lambda line: line[:30]),
        r"train\.json, line 2: it is not valid JSON",
    ),
    (
        "nlvr2",
        "train",
        "train.json",
        lambda p: change_line(p, 2, lambda line: line.replace("-3-1", "-0-0")),
        r"train\.json, line 2: identifier 'train-10171-0-0' occurs again here, first at .*train\.json, line 1",
    ),
    (
        "nlvr2",
        "train",
        "train.json",
        lambda p: change_line(p, 1, lambda line: line.replace("directory", "folder")),
        r"train\.json, line 1: key 'directory' is missing",
    ),
    (
        "nlvr2",
        "train",
        "train.json",
        lambda p: change_line(p, 1, lambda line: line.replace('"False"', "false")),
        r"train\.json, line 1: key 'label' is False; it must be a string",
    ),
    (
        "nlvr2",
        "train",
        "train.json",
        lambda p: change_line(p, 1, lambda line: line.replace("10171-0-0", "10171-4-0")),
        r"line 1: key 'identifier' is 'train-10171-4-0'; it must be split-set-pair-sentence",
    ),
    (
        "nlvr2",
        "train",
        "train.json",
        lambda p: p.write_bytes(b"\xff" + p.read_bytes()),
        r"train\.json: byte 0: it is not UTF-8 text",
    ),
    (
        "snli-ve",
        "dev",
        "snli_ve_dev.jsonl",
        lambda p: change_line(p, 1, lambda line: line.replace('"neutral"', '"-"')),
        r"snli_ve_dev\.jsonl, line 1: key 'gold_label' is '-'; it must be one of entailment",
    ),
    (
        "snli-ve",
        "dev",
        "snli_ve_dev.jsonl",
        lambda p: change_line(p, 1, lambda line: line + "\n" + line),
        r"snli_ve_dev\.jsonl, line 2: pairID '4705552913\.jpg#2r1n' occurs again here",
    ),
    (
        "snli-ve",
        "dev",
        "snli_ve_dev.jsonl",
        lambda p: change_line(p, 1, lambda line: line.replace("Sisters", "\\ud800")),
        r"line 1: .* is not valid Unicode",
    ),
    (
        "easy-vqa",
        "train",
        "data/train/questions.json",
        lambda p: change_json(p, lambda d: d[1].pop()),
        r"questions\[1\]: it is \['is there a circle\?', 'no'\]",
    ),
    (
        "easy-vqa",
        "train",
        "data/train/questions.json",
        lambda p: p.write_text("[" * 100000),
        r"questions\.json: it cannot be read as JSON",
    ),
    (
        "easy-vqa",
        "train",
        "data/train/questions.json",
        lambda p: p.write_text(" null\n"),
        r"questions\.json: it contains null, and nothing else",
    ),
]


@pytest.mark.parametrize(("name", "split", "file", "damage", "message"), CASES)
def test_a_fault_is_named_with_its_place(
    name: str, split: str, file: str, damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    small.WRITERS[name](tmp_path)
    damage(tmp_path / file)
    benchmark = open_benchmark(name, tmp_path)
    with pytest.raises(DataError, match=message):
        benchmark.records(split)
    faults = Faults(collect=True)
    list(benchmark.located([split], faults))
    assert re.search(message, faults.reasons[0])


def annotation_files(name: str, root: Path) -> dict[str, bytes]:
    small.WRITERS[name](root)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def read_whatever_is_there(name: str, root: Path) -> None:
    """Collecting never raises; strict reading raises DataError or returns the same records."""
    benchmark = open_benchmark(name, root)
    for split in benchmark.splits:
        faults = Faults(collect=True)
        left = [record for _, _, record in benchmark.located([split], faults)]
        "\n".join([*faults.reasons, *map(str, left)]).encode()
        for record in left:
            assert all(benchmark.find_image(image) is None for image in record.images)
        if faults.counts:
            with pytest.raises(DataError, match=re.escape(faults.reasons[0])):
                benchmark.records(split)
        else:
            assert benchmark.records(split) == left


FUZZ = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", BENCHMARKS)
@FUZZ
@given(data=st.data())
def test_files_cut_off_or_overwritten_anywhere(name: str, data: st.DataObject, tmp_path: Path) -> None:
    files = annotation_files(name, tmp_path)
    file = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[file])))
    middle, skip = data.draw(st.binary(max_size=3)), data.draw(st.sampled_from([0, 1, 5, 10**6]))
    (tmp_path / file).write_bytes(files[file][:at] + middle + files[file][at + skip :])
    read_whatever_is_there(name, tmp_path)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, item in below for place in places(item, (*way, key)))]


def replaced(value: Any, way: tuple[Any, ...], other: Any) -> Any:
    if not way:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = replaced(value[way[0]], way[1:], other)
    return copy


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "coco-qa"])
@FUZZ
@given(data=st.data())
def test_values_of_another_type_anywhere(name: str, data: st.DataObject, tmp_path: Path) -> None:
    files = annotation_files(name, tmp_path)
    file = data.draw(st.sampled_from([file for file in sorted(files) if not file.endswith(".csv")]))
    text = files[file].decode()
    by_line = name in ("nlvr2", "snli-ve")
    documents = [json.loads(part) for part in (text.rstrip("\n").split("\n") if by_line else [text])]
    way = data.draw(st.sampled_from(places(documents[0])))
    documents[0] = replaced(documents[0], way, data.draw(VALUES))
    (tmp_path / file).write_text("".join(json.dumps(document) + "\n" for document in documents))
    read_whatever_is_there(name, tmp_path)


@FUZZ
@given(
    lines=st.lists(
        st.tuples(
            st.text(max_size=8), st.text(max_size=8), st.sampled_from("01234x"), st.sampled_from(["9", "", "-1"])
        ),
        max_size=4,
    )
)
def test_any_lines_of_coco_qa(lines: list[tuple[str, ...]], tmp_path: Path) -> None:
    columns = list(zip(*lines, strict=True)) or [()] * 4
    for file, column in zip(("questions", "answers", "types", "img_ids"), columns, strict=True):
        small.write(tmp_path / "test" / f"{file}.txt", column)
    read_whatever_is_there("coco-qa", tmp_path)
