"""The zoo in numbers: counts, measurements, and, separately, the paper's numbers.

``python -m ashnets.zoo.numbers`` updates the page ``README.md`` in this folder; with ``--count`` it first counts every
model again (:mod:`ashnets.zoo.sizes`). Sources: metrics from ``results/*.csv``, written by ``ashnets evaluate``; spikes
and energy from ``results/energy/NAME.json``, the ``energy.json`` of ``ashnets energy NAME --output FOLDER``; speeds
from ``results/throughput.csv``, written by ``tests/bench/bench_throughput.py``; the paper's tables from ``paper/``.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from ashnets.digests import WEIGHTS_SHA256
from ashnets.errors import ConfigurationError
from ashnets.files import JsonObject, read_csv, write_atomically
from ashnets.zoo.registry import ROOT, entry, list_models, matching, read_yaml
from ashnets.zoo.sizes import counted

THROUGHPUT = "throughput.csv"
PROFILES = ("45nm-fp32", "loihi1-with-a100")  # of energy in the table: two kinds of hardware with different verdicts
RESULT = ("task", "split", "n", "seeds", "metric", "chance")  # columns of `results_of`
SPEEDS = {"resnet18": "speed ÷ ResNet-18", "ann": "speed ÷ its ann"}  # column of THROUGHPUT → of the table
# Columns of a results file that describe how a row was measured; the others identify the row or contain metrics.
CIRCUMSTANCES = ("recipe", "seed", "pairs_seen", "training_seconds", WEIGHTS_SHA256, "device", "torch")
# Values of a row about the whole model from a reset state; a model without a spiking branch is ``concrete``. The others
# are ablations, other orders of the items, and baselines.
AS_IT_IS = {"branch": ("", "both", "concrete"), "variant": ("", "reset")}


@dataclass(frozen=True)
class PaperRow:
    """One row of a table of the paper, as printed.

    Attributes:
        table: its number.
        title: the file's name in words.
        cells: column → printed text.
        flags: contradictions between this row and another place of the paper.
    """

    table: int
    title: str
    cells: dict[str, str]
    flags: tuple[str, ...]


def numbers(name: str) -> JsonObject:
    """One line of the zoo's table.

    Returns:
        ``name``, ``trained``, ``parameters``, ``gmac`` (dense, one image and the longest text, spiking encoder over all
        T steps as if every input were a spike), ``spikes`` an image, ``energy`` (profile → estimated pJ an image of
        the spiking branch), ``throughput`` (``resnet18``, ``ann`` → images a second, divided by those of ResNet-18
        and of the model without spikes) and ``metrics`` (rows of the results files). Values that were not measured are
        None or empty.
    """
    found = entry(name)
    size, speed = counted().get(found.name), _speeds().get(found.name, {})
    energy = measured_energy(found.name)
    return {
        "name": found.name,
        "trained": found.weights is not None,
        "tags": list(found.tags),
        "parameters": size.total if size else None,
        "gmac": round(size.all_macs / 1e9, 4) if size else None,
        "spikes": round(energy[0].spikes) if energy else None,
        "energy": {row.profile: row.spiking for row in energy},
        "throughput": {baseline: float(speed[f"ratio_{baseline}"]) for baseline in SPEEDS if speed},
        "metrics": [row for file in result_files() for row in measured(found.name, file)],
    }


def page() -> str:
    """``zoo/README.md``: the table, with an explanation."""
    return (
        "# The zoo in numbers\n\n"
        "Made by `python -m ashnets.zoo.numbers`; do not edit. Parameters are those of the model without a head. GMAC "
        "are multiply-accumulates (dense) for one image and the longest text; the spiking encoder is counted over all "
        "T steps, as if every input were a spike. Spikes were counted on images. Energy is an estimate of the spiking "
        "branch's arithmetic under two of nine hardware profiles. A dash means: not measured. The results are the "
        "best rows of `results/`, from text to image, whose files contain chance for every row; R@1 is the mean of all "
        "seeds with its standard deviation. A model without weights cannot be loaded. If it has a result, it was "
        "trained here, but its weights are not published.\n\n"
        f"{_about_speeds()}\n\n"
        f"{table()}\n"
        "The numbers of the paper are in `paper/`. None of them was measured here, and some contradict each other:\n\n"
        + "".join(f"- Table {n}: {flag}.\n" for n in range(1, 15) for flag in paper_flags(n))
    )


def choose(pattern: str | None = None, pretrained: bool | None = None, millions: float | None = None) -> list[str]:
    """Names in the registry, filtered by a glob, by trained weights, and by at most so many million parameters."""
    names = matching(pattern, pretrained)
    if millions is None:
        return names
    return [name for name in names if name in counted() and counted()[name].total <= millions * 1e6]


def table(names: list[str] | None = None, profiles: tuple[str, str] | None = None) -> str:
    """The zoo as Markdown: `columns_and_rows`."""
    head, rows = columns_and_rows(names, profiles)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def columns_and_rows(
    names: list[str] | None = None, profiles: tuple[str, str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and a row for each model; a dash means: not measured.

    Args:
        names: all by default.
        profiles: two energy profiles; by default ``PROFILES``, or the first two that were measured.
    """
    rows = [numbers(name) for name in (list_models() if names is None else names)]
    known = sorted({profile for row in rows for profile in row["energy"]})
    chosen = profiles or (PROFILES if set(PROFILES) <= set(known) else tuple(known[:2]))
    head = ["model", "weights", "parameters", "GMAC", "spikes an image", *(f"µJ, {one}" for one in chosen)]
    head += [*SPEEDS.values(), "results"]
    found = []
    for row in rows:
        cells = [
            f"`{row['name']}`",
            ", ".join(row["tags"]) or "none",
            _millions(row["parameters"]),
            "–" if row["gmac"] is None else f"{row['gmac']:.2f}",
            "–" if row["spikes"] is None else f"{row['spikes']:,}",
            *("–" if one not in row["energy"] else f"{row['energy'][one] / 1e6:.3g}" for one in chosen),
            *(f"{row['throughput'][one]:.2g}" if one in row["throughput"] else "–" for one in SPEEDS),
            "; ".join(_headlines(row["metrics"])) or "–",
        ]
        found.append(cells)
    return head, found


def best(rows: list[dict[str, str]], metric: str) -> dict[str, str] | None:
    """The row with the greatest value of ``metric``, of the model as it is; of two directions, from text to image."""
    ways = ("", "text_to_image")
    with_it = [row for row in rows if row.get(metric) and is_as_it_is(row) and row.get("direction", "") in ways]
    return max(with_it, key=lambda row: float(row[metric])) if with_it else None


def is_as_it_is(row: dict[str, str]) -> bool:
    """Whether a row is about the model as it is: see ``AS_IT_IS``.

    A row that says which share of the answers is ``changed`` compares another variant with it.
    """
    return not row.get("changed") and all(row.get(key, "") in known for key, known in AS_IT_IS.items())


def _headlines(rows: list[dict[str, str]]) -> Iterator[str]:
    """The best R@1 with its seeds, and the accuracy on each data set with its chance level."""
    if recall := best(rows, "R@1"):
        alike = ("split", "direction", "branch", "ranking")
        seeds = [row for row in rows if all(row.get(key) == recall.get(key) for key in alike)]
        value = over_seeds([float(row["R@1"]) for row in seeds])
        yield f"R@1 {value} ({recall['split']}, {recall['direction'].replace('_', ' ')})"
    for data in dict.fromkeys(row["data"] for row in rows if row.get("accuracy") and row.get("data")):
        here = [row for row in rows if row.get("data") == data]
        chance = [row["accuracy"] for row in here if row.get("variant") == "chance"]
        if found := best(here, "accuracy"):
            beside = f", chance {share(chance[0])}" if chance else ""
            yield f"accuracy {share(found['accuracy'])} ({data} {found['split']}{beside})"


def results_of(name: str) -> list[dict[str, str]]:
    """What was measured of a model, as text: a row for each split and direction of retrieval, and for each task.

    Returns:
        Rows with the keys ``RESULT``. The metric is R@1 by ITC, the mean of all seeds with its standard deviation, or
        the accuracy of the fine-tuned model.
    """
    found = []
    for file in result_files():
        recalls: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in measured(name, file):
            if row.get("R@1") and is_as_it_is(row) and row.get("ranking", "ITC") == "ITC":
                recalls.setdefault((row["split"], row["direction"]), []).append(row)
        for (split, way), rows in recalls.items():
            metric = f"R@1 {over_seeds([float(row['R@1']) for row in rows])}"
            chance = f"{float(rows[0]['chance R@1']):.4f}"
            told = (f"retrieval, {way.replace('_', ' ')}", split, rows[0]["images"], str(len(rows)), metric, chance)
            found.append(dict(zip(RESULT, told, strict=True)))
    for path in sorted((ROOT / "results" / "tasks").glob("*.csv")):
        rows = measured(name, f"tasks/{path.name}")
        chances = [row["accuracy"] for row in rows if row.get("variant") == "chance"]
        for row in rows:
            if row.get("accuracy") and row.get("variant") == "reset" and not row.get("changes"):
                metric, chance = f"accuracy {share(row['accuracy'])}", share(chances[0]) if chances else "–"
                told = (f"{row['data']}, fine-tuned", row["split"], row["n"], "1", metric, chance)
                found.append(dict(zip(RESULT, told, strict=True)))
    return found


def over_seeds(values: list[float]) -> str:
    """The mean of the seeds and their standard deviation: ``0.451 ± 0.004``; one value alone has none."""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f}"


def measured(name: str, file: str | Path) -> list[dict[str, str]]:
    """The rows of a results file whose column ``model`` is ``name``; empty if there is no such file."""
    return [row for row in read_csv(ROOT / "results" / file) if row.get("model") == name]


def result_files() -> list[str]:
    """The files of ``results/`` that contain metrics."""
    return sorted(p.name for p in (ROOT / "results").glob("*.csv") if p.name != THROUGHPUT)


@dataclass(frozen=True)
class EnergyRow:
    """The estimate under one profile, in pJ an image.

    Attributes:
        profile, title: of the hardware.
        data: the images that were counted.
        spikes, synaptic_operations: for one image.
        spiking, with_memory: the spiking branch; without memory traffic, and the interval with it.
        dense, artificial: the ANN of the same shape as the spiking branch, and the parts that do not spike; without
            memory traffic.
        assumptions: of the estimate.
        weights_sha256: of the counted weights; None if the report does not give it.
    """

    profile: str
    title: str
    data: str
    spikes: float
    synaptic_operations: float
    spiking: float
    with_memory: tuple[float, float]
    dense: float
    artificial: float
    assumptions: tuple[str, ...]
    weights_sha256: str | None = None


def measured_energy(name: str) -> list[EnergyRow]:
    """The estimates of a model of the zoo; empty if it was not counted."""
    path = ROOT / "results" / "energy" / f"{name}.json"
    return read_energy(path) if path.is_file() else []


def read_energy(path: Path) -> list[EnergyRow]:
    """Read a report of ``ashnets energy``: a row for each profile.

    Raises:
        ConfigurationError: the file is missing, or it is not such a report.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        counts, images = report["counts"], report["counts"]["images"]
        return [
            EnergyRow(
                profile=one["profile"],
                title=one["title"],
                data=one["data"],
                spikes=counts["spikes"] / images,
                synaptic_operations=counts["synaptic_operations"] / images,
                spiking=one["spiking"]["total"],
                with_memory=(one["spiking"]["total_with_memory"]["low"], one["spiking"]["total_with_memory"]["high"]),
                dense=one["dense_twin"],
                artificial=sum(one["artificial"].values()),
                assumptions=tuple(one["assumptions"]),
                weights_sha256=report.get("model", {}).get(WEIGHTS_SHA256),
            )
            for one in report["estimates"]
        ]
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); `ashnets energy` writes one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not an energy report ({type(error).__name__}: {error}); give the energy.json that "
            "`ashnets energy NAME --output FOLDER` writes"
        ) from None


def paper_rows(name: str) -> list[PaperRow]:
    """The paper's rows about a model; empty for models that are not in the paper."""
    rows = []
    for number, first in read_yaml(ROOT / "paper" / "models.yaml").get(name, {}).items():
        file = next((ROOT / "paper").glob(f"table-{number:02d}-*.csv"))
        for cells in read_csv(file):
            if next(iter(cells.values())) == str(first):
                rows.append(PaperRow(number, file.stem[9:].replace("-", " "), cells, paper_flags(number, str(first))))
    return rows


def paper_flags(table: int, row: str | None = None) -> tuple[str, ...]:
    """Contradictions with another place of the paper, in a table or in one of its rows."""
    return tuple(
        ": ".join(filter(None, (flag["column"], flag["flag"])))
        for flag in read_csv(ROOT / "paper" / "flags.csv")
        if int(flag["table"]) == table and (row is None or flag["row"] in ("", row))
    )


def _speeds() -> dict[str, dict[str, str]]:
    return {row["model"]: row for row in read_csv(ROOT / "results" / THROUGHPUT)}


def _about_speeds() -> str:
    rows = list(_speeds().values())

    def all_of(key: str) -> str:
        return ", ".join(sorted({row[key] for row in rows}))

    rounds = sorted(int(row["rounds"]) for row in rows)
    machines: dict[str, list[str]] = {}
    for row in rows:
        machines.setdefault(row["device"], []).append(f"`{row['model']}`")
    measured_on = "\n".join(f"- {device}: {', '.join(names)}" for device, names in sorted(machines.items()))
    return (
        "Speeds are ratios of images a second: the whole model at inference (one image, the longest text), divided by "
        "ResNet-18 (of transformers, with its classifier) on the same images, and by the same model without spikes "
        "(`-ann`). A model and its baselines take turns in one run. They have random weights, since training does not "
        "change the speed. The ratios are valid for the machine and the batch size of the measurement, and "
        f"differ by up to a tenth from run to run. Measured with {all_of('threads')} threads, batches of "
        f"{all_of('batch')}, {rounds[0]} to {rounds[-1]} rounds, seed {all_of('seed')}, torch {all_of('torch')}. "
        "`results/throughput.csv` contains the quartiles over the rounds, and the versions; "
        "`python tests/bench/bench_throughput.py --output zoo/results/throughput.csv` measures it again. "
        f"Each speed was measured on one of these machines:\n\n{measured_on}"
    )


def share(value: str) -> str:
    """A share of a results file with three digits, halves rounded up: 0.6685 gives 0.669; a dash for an empty one."""
    return str(Decimal(value).quantize(Decimal("0.001"), ROUND_HALF_UP)) if value else "–"


def _millions(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f} M"


def main(arguments: list[str]) -> int:
    """Update the page; see the head of this file."""
    if set(arguments) - {"--count"}:
        print("usage: python -m ashnets.zoo.numbers [--count]", file=sys.stderr)
        return 2
    if arguments:
        from ashnets.zoo.counting import write_sizes  # needs torch

        print(write_sizes())
    print(write_atomically(ROOT / "README.md", page().encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
