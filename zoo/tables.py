"""Tables for README from the results files; ``python -m ashnets.zoo.tables README.md`` renews them in place."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

from ashnets.files import write_atomically
from ashnets.zoo.registry import ROOT

RESULTS = ROOT / "results" / "pictograms.csv"
SPLITS = {
    "test-twitter-seen": "Twitter, seen",
    "test-twitter-new": "Twitter, new",
    "test-openmoji-seen": "OpenMoji, seen",
    "test-openmoji-new": "OpenMoji, new",
}
MODELS = {
    ("ashnets-tiny", "both"): "`ashnets-tiny`",
    ("ashnets-tiny", "concrete alone"): "the same, branch off",
    ("ashnets-tiny-ann", "concrete"): "`ashnets-tiny-ann`",
}
KS = ("R@1", "R@5", "R@10")
_PLACE = re.compile(r"(<!-- results: zoo/results/pictograms\.csv -->\n).*?(<!-- end of results -->)", re.DOTALL)


def retrieval_table(path: Path = RESULTS) -> str:
    """The ITC rows of a results file as Markdown: a line for each split and model, chance behind each split."""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["ranking"] == "ITC"]
    found = {(r["split"], r["model"], r["branch"], r["direction"]): r for r in rows}
    lines = [
        "| pictures | n | model | text → image R@1 | R@5 | R@10 | image → text R@1 | R@5 | R@10 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for split, title in SPLITS.items():
        for (model, branch), label in MODELS.items():
            ways = [found[split, model, branch, way] for way in ("text_to_image", "image_to_text")]
            cells = [f"{float(way[k]):.3f}" for way in ways for k in KS]
            lines.append(f"| {title} | {ways[0]['pictures']} | {label} | {' | '.join(cells)} |")
        cells = [f"{float(way[f'chance {k}']):.4f}" for way in ways for k in KS]
        lines.append(f"| {title} | {ways[0]['pictures']} | chance | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def renew(text: str, table: str) -> str:
    """``text`` with the table between its two marks replaced."""
    renewed, places = _PLACE.subn(lambda marks: f"{marks[1]}{table}{marks[2]}", text)
    if places != 1:
        raise ValueError(f"the text has {places} places for the results table, not one")
    return renewed


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_atomically(target, renew(target.read_text(encoding="utf-8"), retrieval_table()).encode())
