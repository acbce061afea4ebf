"""README: its programs run, its table equals the results file, its files exist."""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
import sys

import pytest

from ashnets.zoo.tables import SPEEDS, SPLITS, renew, retrieval_table, speed_table, task_table

LIF = "spiking-lif"


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_every_python_block_runs(repository):
    found = blocks((repository / "README.md").read_text(encoding="utf-8"))
    assert len(found) == 2
    for code in found:
        result = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stdout


def test_the_first_block_prefers_the_right_text(repository):
    code = blocks((repository / "README.md").read_text(encoding="utf-8"))[0]
    code += "\nscores = (image.image_embeds @ text.text_embeds.T)[0]\nassert scores[0] > scores[1] + 0.1, scores"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, capture_output=True)


def test_the_tables_are_the_results_files(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert renew(text) == text, "run: python -m ashnets.zoo.tables README.md"
    with open(repository / "zoo" / "results" / "pictograms.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    line = next(row for row in text.splitlines() if row.startswith("| Twitter, seen | 1444 | `ashnets-tiny` |"))
    found = [
        float(row["R@10"])
        for row in rows
        if (row["model"], row["split"], row["branch"], row["ranking"], row["direction"])
        == ("ashnets-tiny", "test-twitter-seen", "both", "ITC", "text_to_image")
    ]
    assert float(line.split("|")[7].split("±")[0]) == pytest.approx(sum(found) / len(found), abs=6e-4)
    assert min(found) >= 0.5, "what the bundled weights were meant to reach"


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


def test_the_prose_tells_the_numbers_of_the_table(repository):
    text = " ".join((repository / "README.md").read_text(encoding="utf-8").split())
    line = next(line for line in task_table().splitlines() if line.startswith("| easy-VQA"))
    alone, snn = (line.split(" | ")[i] for i in (4, 7))
    assert f"The spiking branch alone answers {snn} of easy-VQA, where text alone reaches {alone}." in text


def test_files_that_are_named_exist(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:zoo|ashnets|export|hub|tests)/[\w./-]*)`", text)) | {"CONTRIBUTING.md", "NOTICE"}
    assert len(named) > 5
    missing = [name for name in named if not (repository / name).exists()]
    assert not missing


def test_a_line_of_the_table_of_tasks(tmp_path):
    row = "ashnets-tiny,{},r,0,easy-vqa,test,{},2000,{},9600,cpu,2\n"
    head = "model,changes,recipe,seed,data,split,variant,n,accuracy,pairs_seen,device,torch\n"
    values = {"reset": 0.91, "constant image": 0.5, "chance": 0.4, "majority by text": 0.61, "bag of words": 0.62}
    lines = [row.format("", name, value) for name, value in values.items()]
    lines.append(row.format("summary_ratio=ann", "reset", 0.9))
    (tmp_path / "easy-vqa.csv").write_text(head + "".join(lines), encoding="utf-8")
    last = task_table(tmp_path).splitlines()[-1]
    assert last == "| easy-VQA, questions | 9,600 | 2000 | 0.400 | 0.620 | 0.500 | 0.900 | – | – | 0.910 |"


def test_the_line_of_retrieval(tmp_path):
    row = 'ashnets-tiny,{},r,0,pictogram-retrieval,test,{},both,"{}",1000,1000,{},0.001,13314,cpu,2\n'
    head = "model,changes,recipe,seed,data,split,direction,branch,ranking,images,texts,R@1,chance R@1,pairs_seen,"
    head += "device,torch\n"
    lines = [
        row.format("", way, name, value)
        for name, values in {"ITC": (0.5, 0.6), "ITC, constant image": (0.002, 0.003)}.items()
        for way, value in zip(("text_to_image", "image_to_text"), values, strict=True)
    ]
    lines += [row.format("summary_ratio=snn", "image_to_text", "ITC", 0.2)]
    lines += [row.format("summary_ratio=snn", "text_to_image", "ITC", 0.1)]
    (tmp_path / "pictogram-retrieval.csv").write_text(head + "".join(lines), encoding="utf-8")
    last = task_table(tmp_path).splitlines()[-1]
    assert last.endswith("R@1, text → image | 13,314 | 1000 | 0.001 | 0.001 | 0.002 | – | 0.100 | – | 0.500 |")


def test_a_text_without_the_places_of_the_tables_is_refused():
    with pytest.raises(ValueError, match=r"0 places for the table of zoo/results/pictograms\.csv"):
        renew("nothing")


def test_a_missed_aim_is_told(tmp_path):
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
    assert head[-3:] == ["aim", "AMD", "INTEL"] and len(lines) == sum(map(len, SPEEDS.values()))
    assert lines[0][1:] == [*SPEEDS[LIF][0], "", "1.250", "1.250"]
    assert lines[1][1:] == [*SPEEDS[LIF][1], "≥ 2", *["2.250 (1.00 to 2.00)"] * 2]
    assert lines[-1][1:] == [*SPEEDS["training"][1], "≤ 2", "2.250 (1.00 to 2.00), missed", "–"]


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
