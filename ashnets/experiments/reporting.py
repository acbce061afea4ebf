"""The output of an experiment: the results file, a table, a plot, and a page with the paper's numbers next to ours."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ashnets.experiments.results import TIMES, result_rows
from ashnets.experiments.sheet import SHEET_IMAGE
from ashnets.experiments.units import Unit
from ashnets.figures import COLORS, png, style
from ashnets.files import Row, write_atomically, write_csv
from ashnets.result_folder import result_folder
from ashnets.words import counted
from ashnets.zoo.experiment_files import PRETRAINING, SHEET, ExperimentFile, ScaleFile, paper_cells
from ashnets.zoo.numbers import paper_flags
from ashnets.zoo.verdicts import CLAIM_HEAD, MEANING, Values, claim_lines, mean_and_spread, values_of

PANELS = 4  # of a plot, side by side
RESULTS, TABLE, PAGE, PLOT = "results.csv", "table.md", "page.md", "plot.png"


def write_report(experiment: ExperimentFile, scale: ScaleFile, units: Sequence[Unit], folder: Path) -> list[Row]:
    """Write ``results.csv``, ``table.md``, ``page.md`` and a plot of what is measured so far; returns the rows.

    Nothing is written before there is a row.
    """
    rows = result_rows(experiment, scale, units)
    if not rows:
        return rows
    values = values_of([{key: str(cell) for key, cell in row.items()} for row in rows], experiment, scale)
    with result_folder(folder, RESULTS) as aside:
        write_csv(aside / RESULTS, rows)
        write_atomically(aside / TABLE, measured_table(experiment, scale, values).encode())
        picture = ""
        if experiment.plot == SHEET:
            sheets = [unit.folder / SHEET_IMAGE for unit in units if (unit.folder / SHEET_IMAGE).is_file()]
            if sheets:
                shutil.copyfile(sheets[0], aside / SHEET_IMAGE)
                picture = SHEET_IMAGE
        else:
            with style():
                figure = draw(experiment, scale, values)
                if figure is not None:
                    write_atomically(aside / PLOT, png(figure))
                    picture = PLOT
        write_atomically(aside / PAGE, page(experiment, scale, values, rows, picture).encode())
    return rows


def measured_table(experiment: ExperimentFile, scale: ScaleFile, values: Values) -> str:
    """Mean ± standard deviation over seeds and their number, a line for each row; shares in percent."""
    lines = _head(["row", *experiment.measures])
    for row in experiment.rows_at(scale.like):
        cells = [mean_and_spread(values.get((row.name, one), []), one, scale) for one in experiment.measures]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def paper_table(experiment: ExperimentFile) -> str:
    """The paper's numbers as printed, a line for each row; empty where the paper prints none."""
    cells = paper_cells(experiment)
    columns = {measure: column for measure, column in experiment.measures.items() if column}
    if not cells:
        return ""
    lines = _head(["row", *columns.values()])
    lines += [f"| {row} | {' | '.join(found[one] for one in columns)} |" for row, found in cells.items()]
    return "\n".join(lines) + "\n"


def page(experiment: ExperimentFile, scale: ScaleFile, values: Values, rows: Sequence[Row], picture: str) -> str:
    """The paper and the measurement side by side, in Markdown: two tables, the plot, the verdicts."""
    parts = [f"# {experiment.title}\n\n{_capital(experiment.place)}; scale `{scale.name}`.\n"]
    if printed := paper_table(experiment):
        flags = paper_flags(experiment.table) if experiment.table is not None else ()
        notes = "".join(f"- {flag}\n" for flag in flags)
        parts.append(f"## The paper's numbers\n\nNone of them was measured here.\n\n{printed}\n{notes}")
    about = "Mean ± standard deviation over seeds (number of seeds). Accuracies and recalls in percent."
    parts.append(
        f"## Measured\n\n{about}\n\n{measured_table(experiment, scale, values)}\n"
        f"{_circumstances(experiment, scale, rows)}"
    )
    if picture:
        parts.append(f"![{experiment.title}]({picture})\n")
    if lines := claim_lines(experiment, values):
        parts.append(f"## Claims\n\n{MEANING}\n\n" + "\n".join([*CLAIM_HEAD, *lines]) + "\n")
    return "\n".join(parts)


def draw(experiment: ExperimentFile, scale: ScaleFile, values: Values) -> Figure | None:
    """A plot in the form of the paper's figures: bars by measure, or lines over the rows; None without a value.

    Error bars are standard deviations over seeds. Measures of pre-training have panels of their own units.
    """
    shown = [one for one in experiment.measures if any(measure == one for _, measure in values)]
    shares = [one for one in shown if (metric := scale.metric(one)) is not None and metric[0] != PRETRAINING]
    panels = ([shares] if shares else []) + [[one] for one in shown if one not in shares]
    if not panels:
        return None
    columns = min(len(panels), PANELS)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(max(6.4, 4.2 * columns), 4.4 if lines == 1 else 3.2 * lines), layout="constrained")
    figure.suptitle(f"{experiment.title} ({experiment.place}), measured at scale {scale.name}", fontsize=10)
    rows = [row.name for row in experiment.rows_at(scale.like)]
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, own in zip(places, panels, strict=False):
        percent = own == shares
        (_lines if experiment.plot == "lines" and percent else _bars)(
            axes, rows, own, values, 100.0 if percent else 1.0
        )
        axes.set_ylabel("percent" if percent else own[0])
        if experiment.plot == "lines" and percent:
            axes.set_xlabel(experiment.axis)
        if own in panels[:2]:  # the panels after these have the legend of the second
            axes.legend(fontsize=7)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _bars(axes: Axes, rows: list[str], measures: list[str], values: Values, unit: float) -> None:
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        means, spreads = _means(values, [(row, one) for one in measures], unit)
        places = np.arange(len(measures)) + (number - (len(rows) - 1) / 2) * width
        axes.bar(places, means, width, yerr=spreads, label=row, color=COLORS[number % len(COLORS)], capsize=2)
    axes.set_xticks(np.arange(len(measures)), measures, fontsize=8)


def _lines(axes: Axes, rows: list[str], measures: list[str], values: Values, unit: float) -> None:
    for number, one in enumerate(measures):
        means, spreads = _means(values, [(row, one) for row in rows], unit)
        axes.errorbar(rows, means, yerr=spreads, label=one, color=COLORS[number % len(COLORS)], marker="o", capsize=2)


def _means(values: Values, keys: list[tuple[str, str]], unit: float) -> tuple[list[float], list[float]]:
    found = [values.get(key, []) for key in keys]
    means = [unit * statistics.fmean(one) if one else np.nan for one in found]
    return means, [unit * statistics.stdev(one) if len(one) > 1 else 0.0 for one in found]


def _circumstances(experiment: ExperimentFile, scale: ScaleFile, rows: Sequence[Row]) -> str:
    """n, chance and text alone of each task; hardware and versions."""
    lines = _head(["task", "data", "split", "metric", "n", "chance", "text alone"])
    shown = set(scale.measures.values())
    told = {
        (row["task"], row["metric"]): [row[key] for key in ("data", "split", "metric", "n", "chance", "blind")]
        for row in rows
        if (row["task"], row["metric"]) in shown
    }
    lines += [f"| {task} | {' | '.join(str(cell) for cell in cells)} |" for (task, _), cells in told.items()]
    versions = sorted(
        {f"{row['device']}, {counted(int(str(row['threads'])), 'thread')}, torch {row['torch']}" for row in rows}
    )
    end = f"Measured on: {'; '.join(versions)}.\n"
    if experiment.costs and not any(row["metric"] in TIMES for row in rows):
        end += "\nThe rows were trained on different processors or numbers of threads: their times are left out.\n"
    return ("\n".join(lines) + "\n\n" if told else "") + end


def _head(columns: list[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
