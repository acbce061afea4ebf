"""README: its programs run, its table is the results file, its files exist."""

from __future__ import annotations

import csv
import re
import subprocess
import sys

import pytest

from ashnets.zoo.tables import renew, retrieval_table


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
    code += "\nscores = (picture.image_embeds @ text.text_embeds.T)[0]\nassert scores[0] > scores[1] + 0.1, scores"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True, capture_output=True)


def test_the_table_is_the_results_file(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert renew(text, retrieval_table()) == text, "run: python -m ashnets.zoo.tables README.md"
    with open(repository / "zoo" / "results" / "pictograms.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    line = next(row for row in text.splitlines() if row.startswith("| Twitter, seen | 1444 | `ashnets-tiny` |"))
    best = next(
        row for row in rows
        if (row["model"], row["split"], row["branch"], row["ranking"], row["direction"])
        == ("ashnets-tiny", "test-twitter-seen", "both", "ITC", "text_to_image")
    )  # fmt: skip
    assert float(line.split("|")[6]) == pytest.approx(float(best["R@10"]), abs=6e-4)
    assert float(best["R@10"]) >= 0.5, "what the bundled weights were meant to reach"


def test_files_that_are_named_exist(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:zoo|ashnets|export|hub|tests)/[\w./-]*)`", text)) | {"CONTRIBUTING.md", "NOTICE"}
    assert len(named) > 5
    missing = [name for name in named if not (repository / name).exists()]
    assert not missing
