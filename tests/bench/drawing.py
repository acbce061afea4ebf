"""Plots the rows of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ashnets.figures import COLORS, SOFT

if TYPE_CHECKING:
    from reporting import Row

LIF, GROWTH, EXPONENT = "LIF alone", "growth", "exponent"  # sections that are drawn as lines; a row without a line


def draw(rows: Sequence[Row], title: str = "") -> Figure:
    """Each measured section in a panel: LIF over N and growth as lines, all others as bars."""
    panels = []
    for section in dict.fromkeys(row.section for row in rows):
        own = [row for row in rows if row.section == section]
        if section == LIF:
            for steps in dict.fromkeys(row.case.partition(",")[0] for row in own):
                panels.append((f"{section}, {steps}", _neurons, [r for r in own if r.case.startswith(steps + ",")]))
        else:
            panels.append((section, _growth if section == GROWTH else _bars, own))
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(8 if columns == 1 else 10, 3.6 * lines), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for place, (name, painter, own) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, place + 1)
        axes.set_title(name)
        painter(axes, own)
    return figure


def _neurons(axes: Axes, rows: list[Row]) -> None:
    for color, what in zip(COLORS, dict.fromkeys(row.what for row in rows), strict=False):
        own = [row for row in rows if row.what == what]
        sizes = [int(row.case.partition("N ")[2].replace(",", "")) for row in own]
        _line(axes, sizes, own, color, what)
    axes.set(xscale="log", yscale="log", xlabel="neurons", ylabel="ratio")
    axes.axhline(1, color=SOFT, linewidth=0.8)
    axes.legend(fontsize=9)


def _growth(axes: Axes, rows: list[Row]) -> None:
    rows = [row for row in rows if not row.what.startswith(EXPONENT)]
    furthest = 1.0
    for color, axis in zip(COLORS, dict.fromkeys(row.what.rpartition(" ")[2] for row in rows), strict=False):
        own = [row for row in rows if row.what.endswith(" " + axis)]
        amounts = [float(row.what.split()[2]) for row in own]
        furthest = max(furthest, *amounts)
        _line(axes, amounts, own, color, axis)
    axes.plot([1, furthest], [1, furthest], color=SOFT, linewidth=0.8, label="linear")
    axes.set(xscale="log", yscale="log", xlabel="times the smallest", ylabel="times its time")
    axes.legend(fontsize=9)


def _line(axes: Axes, xs: Sequence[float], rows: list[Row], color: str, label: str) -> None:
    spread = [[max(0.0, r.ratio - r.low) for r in rows], [max(0.0, r.high - r.ratio) for r in rows]]
    ratios = [r.ratio for r in rows]
    axes.errorbar(xs, ratios, yerr=spread, color=color, marker="o", markersize=4, capsize=2, label=label)


def _bars(axes: Axes, rows: list[Row]) -> None:
    whats = dict.fromkeys(row.what for row in rows)
    names = [row.case if len(whats) == 1 else f"{row.case}\n{row.what}" for row in rows]
    places = range(len(rows))
    bars = axes.barh(places, [row.ratio for row in rows], color=COLORS[0])
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)
    axes.set_yticks(places, names, fontsize=9)
    axes.invert_yaxis()
    axes.axvline(1, color=SOFT, linewidth=0.8)
    axes.margins(x=0.15)
    axes.set_xlabel(f"ratio: {next(iter(whats))}" if len(whats) == 1 else "ratio")
