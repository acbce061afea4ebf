"""Plots the rows of a benchmark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import spiking_growth
import spiking_lif
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from reporting import Row

from ashnets.files import write_atomically

COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Plot each measured section in a panel: LIF over N and growth as lines, all others as bars."""
    panels = []
    for section in dict.fromkeys(row.section for row in rows):
        own = [row for row in rows if row.section == section]
        if section == spiking_lif.SECTION:
            for steps in dict.fromkeys(row.case.partition(",")[0] for row in own):
                panels.append((f"{section}, {steps}", _neurons, [r for r in own if r.case.startswith(steps + ",")]))
        else:
            panels.append((section, _growth if section == spiking_growth.SECTION else _bars, own))
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(8 * columns, 4.5 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    for place, (name, painter, own) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, place + 1)
        axes.set_title(name)
        painter(axes, own)
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix[1:], dpi=110)
    write_atomically(path, data.getvalue())


def _neurons(axes: Axes, rows: list[Row]) -> None:
    for color, what in zip(COLORS, dict.fromkeys(row.what for row in rows), strict=False):
        own = [row for row in rows if row.what == what]
        sizes = [int(row.case.partition("N ")[2].replace(",", "")) for row in own]
        _line(axes, sizes, own, color, what)
    axes.set(xscale="log", yscale="log", xlabel="neurons", ylabel="ratio")
    axes.axhline(1, color="#999999", linewidth=0.8)
    axes.legend(fontsize=8)


def _growth(axes: Axes, rows: list[Row]) -> None:
    rows = [row for row in rows if not row.what.startswith(spiking_growth.EXPONENT)]
    furthest = 1.0
    for color, axis in zip(COLORS, dict.fromkeys(row.what.rpartition(" ")[2] for row in rows), strict=False):
        own = [row for row in rows if row.what.endswith(" " + axis)]
        amounts = [float(row.what.split()[2]) for row in own]
        furthest = max(furthest, *amounts)
        _line(axes, amounts, own, color, axis)
    axes.plot([1, furthest], [1, furthest], color="#999999", linewidth=0.8, label="linear")
    axes.set(xscale="log", yscale="log", xlabel="times the smallest", ylabel="times its time")
    axes.legend(fontsize=8)


def _line(axes: Axes, xs: Sequence[float], rows: list[Row], color: str, label: str) -> None:
    spread = [[max(0.0, r.ratio - r.low) for r in rows], [max(0.0, r.high - r.ratio) for r in rows]]
    ratios = [r.ratio for r in rows]
    axes.errorbar(xs, ratios, yerr=spread, color=color, marker="o", markersize=4, capsize=2, label=label)


def _bars(axes: Axes, rows: list[Row]) -> None:
    names = [f"{row.case}\n{row.what}" for row in rows]
    places = range(len(rows))
    bars = axes.barh(places, [row.ratio for row in rows], color=COLORS[0])
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1, color="#999999", linewidth=0.8)
    axes.margins(x=0.15)
    axes.set_xlabel("ratio")
