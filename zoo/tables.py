"""Tables of README and docs from the results files; ``python -m ashnets.zoo.tables`` updates them in place.

A page has a table at each pair of marks; the pages of a checkout are found from this file.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

from ashnets.files import read_csv, write_atomically
from ashnets.words import counted
from ashnets.zoo.experiment_files import experiment_names, read_experiment
from ashnets.zoo.numbers import over_seeds, share
from ashnets.zoo.registry import ROOT
from ashnets.zoo.verdicts import CLAIM_HEAD, claim_lines, read_values

RESULTS = ROOT / "results"
SPLITS = {
    "test-twitter-seen": "Twitter, seen",
    "test-twitter-new": "Twitter, new",
    "test-openmoji-seen": "OpenMoji, seen",
    "test-openmoji-new": "OpenMoji, new",
}
MODELS = {
    ("ashnets-tiny", "both"): "`ashnets-tiny`",
    ("ashnets-tiny", "concrete alone"): "the same, branch off",
    ("ashnets-tiny", "another image's spikes"): "the same, another image's spikes",
    ("ashnets-tiny", "spikes alone"): "the same, spikes alone",
    ("ashnets-tiny-ann", "concrete"): "`ashnets-tiny-ann`",
    ("ashnets-tiny-snn", "both"): "`ashnets-tiny-snn`",
}
KS = ("R@1", "R@5", "R@10")
TASKS = {
    "easy-vqa": "easy-VQA, questions",
    "pictogram-questions": "pictograms, questions",
    "pictogram-entailment": "pictograms, entailment",
    "pictogram-pairs": "pictograms, pairs",
}
RECALLS = tuple(f"{way} R@{k}" for way in ("t2i", "i2t") for k in (1, 5, 10))
TEXT_ALONE = ("majority by text", "bag of words")
_DEEP, _SAVING, _LONG = "ashnets-r18, ashnets-r152", "ashnets-r18: φ·T 160, 256 px", "T 160, N 65,536"
_LIF = ("spikingjelly LIFNode / ashnets", "snntorch Leaky / ashnets", "ashnets / memory bound")
_BASELINES = ("spikingjelly / ashnets", "spikingjelly, channels-last / ashnets")
_STEPS = "plain settings / recipe"
SPEEDS = {
    "spiking-lif": [(case, what) for case in ("T 10, N 65,536", "T 10, N 1,048,576", _LONG) for what in _LIF],
    "spiking-encoder": [
        *(
            (f"{models}: training step", what)
            for models in ("ashnets-tiny", _DEEP)
            for what in (*_BASELINES, "spikingjelly / its convolutions alone")
        ),
        *((f"{models}: inference", _BASELINES[0]) for models in ("ashnets-tiny", _DEEP)),
    ],
    "spiking-model": [("ashnets-r101-l3, 4 pairs", f"{kind}, with / without SNN") for kind in ("time", "memory")],
    "spiking-memory": [(_SAVING, f"{kind}, ashnets, saving / plain torch") for kind in ("memory", "time")],
    "spiking-formats": [
        (f"{_LONG}: forward + backward", what)
        for what in (
            "plain loop / integer LIF",
            "integer LIF / float LIF",
            "bfloat16 by a float32 copy / bfloat16 as it is",
        )
    ],
    "onnx": [
        *(
            (f"ashnets-tiny, {kind}: encoder, one image", f"eager / {what}")
            for kind in ("float", "int8")
            for what in ("onnxruntime", "its convolutions alone")
        ),
        ("ashnets-tiny, float: embedding, one image", "eager / onnxruntime"),
    ],
    "training": [(f"tiny-pictograms, 128 pairs: {name} phase", _STEPS) for name in ("concrete", "spiking")],
}  # record of tests/bench → its rows
STAGES = {
    "float": "floats",
    "calibrated": "recalibrated",
    "rounded": "rounded to integers",
    "fine-tuned": "fine-tuned through the rounding",
}  # of a quantization


def retrieval_table(path: Path = RESULTS / "pictograms.csv") -> str:
    """The ITC rows of a results file as Markdown: a line for each split and model, and chance for each split.

    A value is the mean over seeds, with the standard deviation (n − 1) if there are several.
    """
    found: dict[tuple[str, str, str, str], list[dict[str, str]]] = {}
    for row in read_csv(path):
        if row["ranking"] == "ITC":
            found.setdefault((row["split"], row["model"], row["branch"], row["direction"]), []).append(row)
    lines = [
        "| images | n | model | seeds | text → image R@1 | R@5 | R@10 | image → text R@1 | R@5 | R@10 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for split, title in SPLITS.items():
        shown = [key for key in MODELS if (split, *key, "text_to_image") in found]
        for model, branch in shown:
            ways = [found[split, model, branch, way] for way in ("text_to_image", "image_to_text")]
            cells = [over_seeds([float(row[k]) for row in way]) for way in ways for k in KS]
            start = f"| {title} | {ways[0][0]['images']} | {MODELS[model, branch]} | {len(ways[0])}"
            lines.append(f"{start} | {' | '.join(cells)} |")
        ways = [found[split, *shown[0], way] for way in ("text_to_image", "image_to_text")]
        cells = [f"{float(way[0][f'chance {k}']):.4f}" for way in ways for k in KS]
        lines.append(f"| {title} | {ways[0][0]['images']} | chance | – | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def short_table(path: Path = RESULTS / "pictograms.csv") -> str:
    """The text → image rows of a results file for one model, with chance beside: a line for each split."""
    name, branch = next(iter(MODELS))
    lines = [f"| images held out | n | {' | '.join(f'{k} | chance' for k in KS)} |", "|---|---|" + "---|---|" * len(KS)]
    rows = [row for row in read_csv(path) if row["ranking"] == "ITC" and row["direction"] == "text_to_image"]
    for split, title in SPLITS.items():
        own = [row for row in rows if (row["split"], row["model"], row["branch"]) == (split, name, branch)]
        cells = [f"{over_seeds([float(row[k]) for row in own])} | {float(own[0][f'chance {k}']):.4f}" for k in KS]
        lines.append(f"| {title} concepts | {own[0]['images']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def task_table(folder: Path = RESULTS / "tasks") -> str:
    """Accuracy of the fine-tuned model on each task, beside chance, text alone and a blank image.

    A line is a file of the folder, written by ``ashnets evaluate RUN TASK DATA --output FILE.csv``.
    """
    heads = ["task", "training items", "n", "chance", "text alone", "blank image"]
    heads += ["`ashnets-tiny`", "membranes carried"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, title in TASKS.items():
        path = folder / f"{name}.csv"
        if not path.is_file():
            continue
        rows = read_csv(path)
        found = {row["variant"]: row["accuracy"] for row in rows}
        blind = max((found[name] for name in TEXT_ALONE), key=float)
        cells = [found["chance"], blind, *(found[name] for name in ("constant image", "reset", "carry"))]
        about = [title, f"{int(rows[0]['pairs_seen']):,}", rows[0]["n"]]
        lines.append(f"| {' | '.join([*about, *map(share, cells)])} |")
    return "\n".join(lines) + "\n"


def stage_table(path: Path = RESULTS / "tasks" / "retrieval.csv") -> str:
    """Retrieval in two stages, text → image: what each ranking finds and how many pairs it scores by ITM."""
    lines = ["| ranking | n | R@1 | R@5 | R@10 | chance R@1 | pairs scored by ITM |", "|" + "---|" * 7]
    for row in read_csv(path):
        if row["direction"] == "text_to_image":
            cells = [row["images"], *(share(row[k]) for k in (*KS, "chance R@1")), f"{int(row['pairs scored']):,}"]
            lines.append(f"| {row['ranking']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def quantized_table(path: Path = RESULTS / "quantized" / "ashnets-tiny.json") -> str:
    """Text retrieval of the whole model and of its spikes alone at each stage, and the last layer's changed spikes."""
    record = json.loads(path.read_text(encoding="utf-8"))
    whole, spikes, changed = (record[key] for key in ("retrieval", "spiking_to_text", "spikes_changed"))
    lines = ["| | n | image → text R@1, whole model | R@1, spikes alone | R@10, spikes alone | spikes that differ |"]
    lines.append("|" + "---|" * 6)
    for stage, title in STAGES.items():
        alone, layers = spikes[stage], list(changed.get(stage, {}).values())
        cells = [f"{one:.3f}" for one in (whole[stage]["image_to_text"]["R@1"], alone["R@1"], alone["R@10"])]
        cells.append(f"{layers[-1]['changed']:.3f}" if layers else "–")
        lines.append(f"| {title} | {alone['images']} | {' | '.join(cells)} |")
    chance = spikes["float"]["chance"]
    cells = [f"{chance[k]:.3f}" for k in ("R@1", "R@1", "R@10")]
    lines.append(f"| chance | {spikes['float']['images']} | {' | '.join(cells)} | – |")
    return "\n".join(lines) + "\n"


def baseline_table(path: Path = RESULTS / "baselines.csv") -> str:
    """Baselines with the same budget: a line for each model and baseline; a dash where there is nothing to measure."""
    lines = [
        "| model | parameters | trained | pairs | time a pair | ranked by | text → image R@1 | R@5 | R@10 "
        "| image → text R@1 | R@5 | R@10 | questions | blank images |",
        "|" + "---|" * 14,
    ]
    for row in read_csv(path):
        cells = [
            row["baseline"],
            *(_millions(row[key]) for key in ("parameters", "trained")),
            row["pairs_seen"] or "–",
            f"× {float(row['time_ratio']):.2f}" if row["time_ratio"] else "–",
            row["ranking"] or "–",
            *(share(row[key]) for key in (*RECALLS, "accuracy", "blind")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def speed_table(folder: Path = RESULTS / "speed") -> str:
    """Ratios of the benchmarks, a column a processor: median, quartiles over the rounds, and the aim of its record.

    A folder in it is a machine; its files are the records of ``bench_spiking.py``, ``bench_onnx.py`` and
    ``bench_training.py``. A machine without a row of the table has no column, a row without a machine no line.
    """
    columns: dict[str, dict[tuple[str, ...], str]] = {}  # processor → row → cell
    titles = {}
    for path in sorted(folder.glob("*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        limits = {target["found"]: target for target in record["targets"]}  # of the row with exactly this number
        for row in record["rows"]:
            key = (path.stem, row["case"], row["what"])
            if key[1:] not in SPEEDS.get(path.stem, ()):
                continue
            cell, aim = f"{row['ratio']:#.4g}", limits.get(row["ratio"])
            if row["rounds"] > 1:
                cell += f" ({row['low']:#.3g} to {row['high']:#.3g})"
            if aim is not None:
                result = "reached" if aim["reached"] else "missed"
                cell += f"; aim {'≥' if aim['at_least'] else '≤'} {aim['limit']} {result}"
            titles[key] = row["section"]
            columns.setdefault(record["machine"]["processor"], {})[key] = cell
    lines = [f"| | case | ratio of | {' | '.join(columns)} |", "|" + "---|" * (3 + len(columns))]
    for key in ((stem, *shown) for stem, all_shown in SPEEDS.items() for shown in all_shown):
        if key in titles:
            cells = [titles[key], *key[1:], *(found.get(key, "–") for found in columns.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def placement_table(folder: Path = RESULTS / "speed") -> str:
    """Cores, time and memory of placing each encoder by each mapping; the records of ``bench_placement.py``.

    A line for each machine, encoder and mapping.
    """
    heads = [
        "spiking encoder of",
        "mapping",
        "cores",
        "time ÷ one image",
        "memory ÷ weights and membranes",
        "processor",
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for path in sorted(folder.glob("*/placement.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        ratios = {(row["case"], row["what"]): row for row in record["rows"]}
        for case, cores in record["notes"]["cores"].items():
            encoder, mapping = case.split(": ")
            time, memory = (ratios[case, what] for what in ("placement / one image", "peak / weights and membranes"))
            spread = f"{time['ratio']:#.3g} ({time['low']:#.3g} to {time['high']:#.3g})"
            names = ", ".join(f"`{name}`" for name in encoder.split(", "))
            cells = [names, mapping, f"{cores:,}", spread, f"{memory['ratio']:#.3g}", record["machine"]["processor"]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def experiment_table(folder: Path = RESULTS / "experiments") -> str:
    """A verdict for each claim of the experiments whose ``NAME/results.csv`` are in the folder; empty without any."""
    lines: list[str] = []
    told: dict[tuple[str, int], list[str]] = {}
    for name in experiment_names():
        experiment = read_experiment(name)
        values, rows = read_values(folder / name / "results.csv", experiment)
        if not rows:
            continue
        seeds = len({row["seed"] for row in rows})
        told.setdefault((rows[0]["scale"], seeds), []).append(f"[{name}](../zoo/results/experiments/{name}/page.md)")
        lines += claim_lines(experiment, values)
    if not told:
        return ""
    about = "; ".join(
        f"scale `{scale}`, {counted(seeds, 'seed')}: {', '.join(names)}" for (scale, seeds), names in told.items()
    )
    table = "\n".join([*CLAIM_HEAD, *lines]) + "\n\n" if lines else ""
    return f"{table}{about[:1].upper()}{about[1:]}.\n"


def own_images_table(path: Path = RESULTS / "own-images.csv") -> str:
    """Ways to a model of own images: a line for each way, learning rate and number of training images.

    A value is the mean over seeds, as in `retrieval_table`. The blank image ranks texts: among equal images no text
    finds its own. Empty without the file.
    """
    if not path.is_file():
        return ""
    found: dict[tuple[str, ...], dict[str, list[dict[str, str]]]] = {}
    for row in read_csv(path):
        way = tuple(row[key] for key in ("data", "way", "trained on", "rate"))
        found.setdefault(way, {}).setdefault(row["direction"], []).append(row)
    heads = ["images", "way", "trained on", "learning rates", "n", "seeds"]
    heads += ["text → image R@1", *KS[1:], "image → text R@10", "chance R@10", "blank image R@10", "minutes of a core"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for (data, way_name, learned, rate), ways in found.items():
        of_texts, of_images = ways["text_to_image"], ways["image_to_text"]
        trained = learned != "0"
        shown = [(of_texts, key) for key in KS]
        shown += [(of_images, "R@10"), (of_texts[:1], "chance R@10"), (of_images, "blank R@10")]
        minutes = statistics.fmean(float(row["core seconds"]) for row in of_texts) / 60
        cells = [
            data.removeprefix("stamps-"),
            way_name if way_name == "as it is" else f"`{way_name}`",
            *((learned, f"× {float(rate):g}") if trained else ("–", "–")),
            of_texts[0]["n"],
            str(len(of_texts)),
            *(over_seeds([float(row[key]) for row in rows]) for rows, key in shown),
            f"{minutes:.1f}" if trained else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _millions(count: str) -> str:
    return f"{int(count) / 1e6:.2f} M" if count else "–"


PLACES: dict[str, Callable[[], str]] = {
    "zoo/results/pictograms.csv, in short": short_table,
    "zoo/results/pictograms.csv": retrieval_table,
    "zoo/results/tasks": task_table,
    "zoo/results/tasks/retrieval.csv": stage_table,
    "zoo/results/baselines.csv": baseline_table,
    "zoo/results/quantized": quantized_table,
    "zoo/results/speed": speed_table,
    "zoo/results/speed, placement": placement_table,
    "zoo/results/experiments": experiment_table,
    "zoo/results/own-images.csv": own_images_table,
}  # source of a table, as its marks in a page name it → the table
MARKS = re.compile(r"(<!-- results: (.*) -->\n)(?:.*\n)*?(<!-- end of results -->)")


def pages() -> list[Path]:
    """README and the pages of docs in this checkout."""
    root = ROOT.parent
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def renew(text: str) -> str:
    """Replace each table between its two marks in the text of a page.

    Raises:
        ValueError: marks of a table that does not exist.
    """

    def table(marks: re.Match[str]) -> str:
        if marks[2] not in PLACES:
            raise ValueError(f"no table is made from {marks[2]!r}; there are tables from {', '.join(PLACES)}")
        return marks[1] + PLACES[marks[2]]() + marks[3]

    return MARKS.sub(table, text)


if __name__ == "__main__":
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = renew(before)
        if after != before:
            print(write_atomically(page, after.encode()))
