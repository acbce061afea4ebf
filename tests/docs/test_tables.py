"""The tables of README and docs equal the results files, and cases by hand."""

from __future__ import annotations

import csv
import json
import re
import statistics

import pytest

from ashnets.zoo.tables import (
    PLACES,
    SPEEDS,
    SPLITS,
    STAGES,
    own_images_table,
    pages,
    placement_table,
    quantized_table,
    renew,
    retrieval_table,
    short_table,
    speed_table,
    stage_table,
    task_table,
)
from tests.docs.written import command_lines, guides

LIF = "spiking-lif"


def test_the_tables_are_the_results_files():
    written = [mark for page in pages() for mark in re.findall(r"<!-- results: (.*) -->", page.read_text("utf-8"))]
    assert sorted(written) == sorted(PLACES), "every table has one place"
    for page in pages():
        text = page.read_text(encoding="utf-8")
        assert renew(text) == text, f"{page}: run python -m ashnets.zoo.tables"


def test_recall_of_the_bundled_weights(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    with open(repository / "zoo" / "results" / "pictograms.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found = [
        float(row["R@10"])
        for row in rows
        if (row["model"], row["split"], row["branch"], row["ranking"], row["direction"])
        == ("ashnets-tiny", "test-twitter-seen", "both", "ITC", "text_to_image")
    ]
    line = next(row for row in text.splitlines() if row.startswith("| Twitter, seen concepts | 1444 |"))
    assert float(line.split("|")[7].split("±")[0]) == pytest.approx(sum(found) / len(found), abs=6e-4)
    assert min(found) >= 0.5, "what the bundled weights were meant to reach"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/faq.md"])
def test_the_training_is_told_as_recorded(repository, page):
    folder = repository / "zoo" / "checkpoints" / "ashnets-tiny.pictograms"
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    threads = {1: "one CPU thread", 2: "two CPU threads"}[record["environment"]["threads"]]
    text = " ".join((repository / page).read_text(encoding="utf-8").split())
    assert f"in {record['seconds'] / 60:.0f} minutes on {threads}" in text


def test_no_command_of_a_page_replaces_results(repository):
    """The files of zoo/results have rows of several seeds and models."""
    for page in guides(repository):
        for line in command_lines(page.read_text(encoding="utf-8")):
            assert not re.search(r"(--output|-o) zoo/", line), f"{page}: {line}"


def test_the_table_of_retrieval_has_means_and_deviations_over_seeds(tmp_path):
    head = "split,model,branch,ranking,direction,images,seed,R@1,R@5,R@10,chance R@1,chance R@5,chance R@10\n"
    row = "{},{},{},{},{},1444,{},{},0.5,0.6,0.0007,0.0035,0.0069\n"
    lines = [
        row.format(split, "ashnets-tiny", "both", ranking, way, seed, value)
        for split in SPLITS
        for ranking, shift in (("ITC", 0), ("ITC, then ITM", 0.3))
        for way in ("text_to_image", "image_to_text")
        for seed, value in enumerate((0.4 + shift, 0.5 + shift, 0.45 + shift))
    ]
    lines.append(row.format("test-twitter-seen", "ashnets-tiny-ann", "concrete", "ITC", "text_to_image", 0, 0.3))
    lines.append(row.format("test-twitter-seen", "ashnets-tiny-ann", "concrete", "ITC", "image_to_text", 0, 0.2))
    (tmp_path / "found.csv").write_text(head + "".join(lines), encoding="utf-8")
    cells = "0.450 ± 0.050 | 0.500 ± 0.000 | 0.600 ± 0.000"
    assert retrieval_table(tmp_path / "found.csv").splitlines()[2:5] == [
        f"| Twitter, seen | 1444 | `ashnets-tiny` | 3 | {cells} | {cells} |",
        "| Twitter, seen | 1444 | `ashnets-tiny-ann` | 1 | 0.300 | 0.500 | 0.600 | 0.200 | 0.500 | 0.600 |",
        "| Twitter, seen | 1444 | chance | – | 0.0007 | 0.0035 | 0.0069 | 0.0007 | 0.0035 | 0.0069 |",
    ]


def test_a_line_of_the_table_of_tasks(tmp_path):
    row = "ashnets-tiny,,r,0,easy-vqa,test,{},2000,{},9600,cpu,2\n"
    head = "model,changes,recipe,seed,data,split,variant,n,accuracy,pairs_seen,device,torch\n"
    values = {"reset": 0.91, "carry": 0.9, "constant image": 0.5}
    values |= {"chance": 0.4, "majority by text": 0.61, "bag of words": 0.62}
    lines = [row.format(name, value) for name, value in values.items()]
    (tmp_path / "easy-vqa.csv").write_text(head + "".join(lines), encoding="utf-8")
    last = task_table(tmp_path).splitlines()[-1]
    assert last == "| easy-VQA, questions | 9,600 | 2000 | 0.400 | 0.620 | 0.500 | 0.910 | 0.900 |"


def test_marks_without_a_table_are_refused():
    marks = "<!-- results: {} -->\nold\n<!-- end of results -->\n"
    with pytest.raises(ValueError, match="no table is made from 'zoo/results/nothing'"):
        renew(marks.format("zoo/results/nothing"))
    source, table = next(iter(PLACES.items()))
    assert renew("a\n" + marks.format(source) + "b").splitlines()[2:-2] == table().splitlines()


def test_the_short_table(tmp_path):
    head = "split,model,branch,ranking,direction,images,seed,R@1,R@5,R@10,chance R@1,chance R@5,chance R@10\n"
    rows = [
        f"{split},ashnets-tiny,both,ITC,{way},200,{seed},{value},0.5,0.6,0.005,0.025,0.05\n"
        for split in SPLITS
        for way, shift in (("text_to_image", 0), ("image_to_text", 0.3))
        for seed, value in enumerate((0.4 + shift, 0.5 + shift))
    ]
    (tmp_path / "found.csv").write_text(head + "".join(rows), encoding="utf-8")
    lines = short_table(tmp_path / "found.csv").splitlines()
    assert len(lines) == 2 + len(SPLITS)
    cells = "0.450 ± 0.071 | 0.0050 | 0.500 ± 0.000 | 0.0250 | 0.600 ± 0.000 | 0.0500"
    assert lines[2] == f"| Twitter, seen concepts | 200 | {cells} |"


def test_the_table_of_stages(tmp_path):
    head = "direction,ranking,images,R@1,R@5,R@10,chance R@1,pairs scored\n"
    rows = "text_to_image,ITC,256,0.7305,0.9,0.95,0.0039,0\nimage_to_text,ITC,256,0.1,0.2,0.3,0.0039,0\n"
    (tmp_path / "retrieval.csv").write_text(head + rows, encoding="utf-8")
    (line,) = stage_table(tmp_path / "retrieval.csv").splitlines()[2:]
    assert line == "| ITC | 256 | 0.731 | 0.900 | 0.950 | 0.004 | 0 |"


def test_the_table_of_quantization(tmp_path):
    whole, alone = {"image_to_text": {"R@1": 0.5}}, {"images": 9, "R@1": 0.25, "R@10": 0.75}
    record = {
        "retrieval": dict.fromkeys(STAGES, whole),
        "spiking_to_text": {key: {**alone, "chance": {"R@1": 1 / 9, "R@10": 1.0}} for key in STAGES},
        "spikes_changed": {"rounded": {"conv1": {"changed": 0.5}, "concepts": {"changed": 0.125}}},
    }
    (tmp_path / "found.json").write_text(json.dumps(record), encoding="utf-8")
    lines = quantized_table(tmp_path / "found.json").splitlines()[2:]
    assert lines[0] == "| floats | 9 | 0.500 | 0.250 | 0.750 | – |"
    assert lines[2] == "| rounded to integers | 9 | 0.500 | 0.250 | 0.750 | 0.125 |"
    assert lines[-1] == "| chance | 9 | 0.111 | 0.111 | 1.000 | – |"


def test_the_table_of_own_images(tmp_path):
    head = "data,way,rate,seed,direction,n,R@1,R@5,R@10,chance R@10,blank R@10,trained on,core seconds\n"
    row = "stamps-drawings,{},{},{},{},80,{},0.4,{},0.125,0.1,{},{}\n"
    ways = (("text_to_image", 0), ("image_to_text", 0.25))
    lines = [row.format("as it is", "1.0", 0, way, 0.25, 0.5 + more, 0, 0) for way, more in ways]
    lines += [
        row.format("own-pairs", "0.5", seed, way, value, 0.5 + more, 160, 60 + 60 * seed)
        for seed, value in enumerate((0.25, 0.5))
        for way, more in ways
    ]
    (tmp_path / "found.csv").write_text(head + "".join(lines), encoding="utf-8")
    alone, trained = own_images_table(tmp_path / "found.csv").splitlines()[2:]
    assert alone == "| drawings | as it is | – | – | 80 | 1 | 0.250 | 0.400 | 0.500 | 0.750 | 0.125 | 0.100 | – |"
    means = "0.375 ± 0.177 | 0.400 ± 0.000 | 0.500 ± 0.000 | 0.750 ± 0.000 | 0.125 | 0.100 ± 0.000 | 1.5"
    assert trained == f"| drawings | `own-pairs` | 160 | × 0.5 | 80 | 2 | {means} |"
    assert own_images_table(tmp_path / "none.csv") == ""


def test_an_aim_is_told_where_its_record_has_one(tmp_path):
    """Rows of every section from two machines; one of them is the number of a target."""
    for section, shown in SPEEDS.items():
        rows = [
            {
                "section": section,
                "case": case,
                "what": what,
                "ratio": 1.25 + i,
                "low": 1,
                "high": 2,
                "rounds": i + 1,
            }
            for i, (case, what) in enumerate(shown)
        ]
        aim = {"found": 2.25, "limit": 2, "at_least": section == LIF, "reached": section == LIF}
        for name in ("amd", "intel") if section == LIF else ("amd",):
            record = {"machine": {"processor": name.upper()}, "rows": rows, "targets": [aim]}
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{section}.json").write_text(json.dumps(record), encoding="utf-8")
    head, _, *lines = [line.strip("| ").split(" | ") for line in speed_table(tmp_path).splitlines()]
    assert head[-3:] == ["ratio of", "AMD", "INTEL"] and len(lines) == sum(map(len, SPEEDS.values()))
    assert lines[0][1:] == [*SPEEDS[LIF][0], "1.250", "1.250"]
    assert lines[1][1:] == [*SPEEDS[LIF][1], *["2.250 (1.00 to 2.00); aim ≥ 2 reached"] * 2]
    assert lines[-1][1:] == [*SPEEDS["training"][1], "2.250 (1.00 to 2.00); aim ≤ 2 missed", "–"]


def test_a_placement_is_a_line_with_its_cores(tmp_path):
    ratio = {"ratio": 1.5, "low": 1.25, "high": 2.0}
    rows = [
        {"case": "a, b: linear", "what": "placement / one image", **ratio},
        {"case": "a, b: linear", "what": "peak / weights and membranes", **ratio, "ratio": 34.21},
    ]
    record = {"machine": {"processor": "AMD"}, "notes": {"cores": {"a, b: linear": 4491}}, "rows": rows}
    (tmp_path / "amd").mkdir()
    (tmp_path / "amd" / "placement.json").write_text(json.dumps(record), encoding="utf-8")
    lines = placement_table(tmp_path).splitlines()
    assert lines[2:] == ["| `a`, `b` | linear | 4,491 | 1.50 (1.25 to 2.00) | 34.2 | AMD |"]


def test_medians_lie_within_their_quartiles(repository):
    """Both are computed from the ratios of the same rounds."""
    paths = list((repository / "zoo/results/speed").glob("*/*.json"))
    assert {path.stem for path in paths} >= SPEEDS.keys() - {"training"}
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        for row in record["rows"] if path.stem in SPEEDS else ():
            if row["rounds"] > 1:
                assert row["low"] <= row["ratio"] <= row["high"], (path, row["case"], row["what"])
                assert row["ratio"] == pytest.approx(statistics.median(row["ratios"]), rel=1e-3)
