"""Small charts as inline SVG: 360 units wide, so that their text has its size on a phone and in a grid of cards alike.

Colors are CSS variables of the page (``--c-NAME``), text is ``currentColor``: one drawing for light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 360
COLORS = 8  # of the cores of a mesh


@dataclass(frozen=True)
class Range:
    """A row of a range plot: a dot at ``value``, a bar from ``low`` to ``high`` if there is one, a note at the end."""

    label: str
    color: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a chart: points (x, y)."""

    label: str
    color: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def stacked(parts: Sequence[tuple[str, str, float]], title: str) -> str:
    """One bar whose parts (label, color, value) add up to its width; a share of 12 % or more is written on it."""
    total = sum(value for _, _, value in parts) or 1.0
    x, body = 0.0, []
    for label, color, value in parts:
        width = WIDTH * value / total
        body.append(
            f'<rect x="{x:.1f}" y="2" width="{width:.1f}" height="22" fill="var(--c-{color})">'
            f"<title>{escape(label)}: {value / total:.1%}</title></rect>"
        )
        if value / total >= 0.12:
            body.append(
                f'<text x="{x + width / 2:.1f}" y="17" class="on" text-anchor="middle">{value / total:.0%}</text>'
            )
        x += width
    return _svg(26, body, title)


def ranges(rows: Sequence[Range], unit: float, unit_name: str, title: str) -> str:
    """Rows on one logarithmic axis: dots, and bars from low to high."""
    shown = [value for row in rows for value in (row.value, row.low, row.high) if value]
    low, high = _decades(min(shown) / unit, max(shown) / unit)
    left, right, step = 8, WIDTH - 8, 34

    def x(value: float) -> float:
        return left + (right - left) * (math.log10(value / unit) - low) / (high - low)

    bottom = 6 + step * len(rows)
    every = max(1, math.ceil((high - low) / 6))
    body = []
    for power in range(low, high + 1):
        place = left + (right - left) * (power - low) / (high - low)
        body.append(f'<line x1="{place:.1f}" y1="4" x2="{place:.1f}" y2="{bottom}" class="grid"/>')
        if (power - low) % every == 0:
            anchor = "start" if power == low else "end" if power == high else "middle"
            body.append(
                f'<text x="{place:.1f}" y="{bottom + 14}" class="tick" text-anchor="{anchor}">{_power(power)}</text>'
            )
    for i, row in enumerate(rows):
        y = 6 + step * i
        body.append(f'<text x="{left}" y="{y + 12}" class="label">{escape(row.label)}</text>')
        body.append(f'<text x="{right}" y="{y + 12}" class="label" text-anchor="end">{escape(row.note)}</text>')
        if row.low and row.high:
            body.append(
                f'<rect x="{x(row.low):.1f}" y="{y + 18}" width="{max(2.0, x(row.high) - x(row.low)):.1f}" height="8" '
                f'rx="4" fill="var(--c-{row.color})" opacity="0.35"/>'
            )
        if row.value:
            body.append(
                f'<circle cx="{x(row.value):.1f}" cy="{y + 22}" r="5.5" fill="var(--c-{row.color})" class="dot"/>'
            )
    body.append(f'<text x="{right}" y="{bottom + 30}" class="tick" text-anchor="end">{escape(unit_name)}</text>')
    return _svg(bottom + 34, body, title)


def lines(series: Sequence[Line], x_label: str, y_label: str, title: str, mark: tuple[float, str] | None = None) -> str:
    """Lines over a linear x and a logarithmic y axis, with a vertical mark where something was counted."""
    points = [(x, y) for line in series for x, y in line.points if y > 0]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = math.log10(min(y for _, y in points)), math.log10(max(y for _, y in points))
    pad = max(0.06 * (y1 - y0), 0.05)
    y0, y1 = y0 - pad, y1 + pad
    left, right, top, bottom = 44, WIDTH - 10, 22, 176

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x0) / ((x1 - x0) or 1)
        return left + (right - left) * across, bottom - (bottom - top) * (math.log10(y) - y0) / (y1 - y0)

    body = [f'<text x="4" y="12" class="tick">{escape(y_label)}</text>']
    for tick in _log_ticks(y0, y1):
        _, y = place(x0, tick)
        body.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>')
        body.append(f'<text x="{left - 5}" y="{y + 4:.1f}" class="tick" text-anchor="end">{_short(tick)}</text>')
    for tick in _ticks(x0, x1):
        x, _ = place(tick, 10**y0)
        body.append(f'<text x="{x:.1f}" y="{bottom + 15}" class="tick" text-anchor="middle">{_short(tick)}</text>')
    if mark is not None:
        x, _ = place(mark[0], 10**y0)
        anchor = "end" if x > (left + right) / 2 else "start"
        body.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" class="mark"/>')
        body.append(
            f'<text x="{x + (-4 if anchor == "end" else 4):.1f}" y="{top - 3}" class="tick" text-anchor="{anchor}">'
            f"{escape(mark[1])}</text>"
        )
    for line in series:
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line.points if y > 0)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        body.append(f'<polyline points="{path}" stroke="var(--c-{line.color})" class="line"{dash}/>')
    body.append(f'<text x="{right}" y="{bottom + 31}" class="tick" text-anchor="end">{escape(x_label)}</text>')
    return _svg(bottom + 36, body, title)


def rate_bars(rows: Sequence[tuple[str, float, float]], title: str) -> str:
    """Firing rates: for each (layer, mean, 95th percentile) a bar and a tick, from 0 to 1 spike a step."""
    left, right, step = 70, WIDTH - 44, 26
    body = []
    bottom = 4 + step * len(rows)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + (right - left) * share
        body.append(f'<line x1="{x:.1f}" y1="2" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        body.append(f'<text x="{x:.1f}" y="{bottom + 14}" class="tick" text-anchor="middle">{share:g}</text>')
    for i, (name, mean, p95) in enumerate(rows):
        y = 4 + step * i
        width = (right - left) * mean
        body.append(f'<text x="{left - 6}" y="{y + 15}" class="label" text-anchor="end">{escape(name)}</text>')
        body.append(
            f'<rect x="{left}" y="{y + 4}" width="{width:.1f}" height="14" rx="2" fill="var(--c-spiking)"/>'
            f'<line x1="{left + (right - left) * p95:.1f}" y1="{y + 1}" x2="{left + (right - left) * p95:.1f}" '
            f'y2="{y + 21}" class="p95"/>'
            f'<text x="{right + 6}" y="{y + 15}" class="tick">{mean:.1%}</text>'
        )
    body.append(
        f'<text x="{right}" y="{bottom + 30}" class="tick" text-anchor="end">spikes a neuron and step; '
        "vertical line: 95th percentile</text>"
    )
    return _svg(bottom + 36, body, title)


def mesh(
    cores: Sequence[int | None], columns: int, rows: int, cores_per_tile: int, names: Sequence[str], title: str
) -> str:
    """The mesh of a chip: a square for each core, in the color of what it holds; a frame around each tile.

    Args:
        cores: for each core of the chip, column by column of tiles, the index of its name; None: unused.
        names: of what the cores hold; their colors are ``--c-p0``, ``--c-p1``, ….
    """
    across = math.ceil(math.sqrt(cores_per_tile))
    down = math.ceil(cores_per_tile / across)
    cell = min(12.0, (WIDTH - 4) / (columns * (across + 0.5)))
    wide, high = cell * (across + 0.5), cell * (down + 0.5)
    body = []
    for tile in range(columns * rows):
        left, top = 2 + tile // rows * wide, 2 + tile % rows * high
        body.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide - 0.3 * cell:.1f}" height="{high - 0.3 * cell:.1f}" '
            'class="tile"/>'
        )
        for i in range(cores_per_tile):
            core = tile * cores_per_tile + i
            held = cores[core]
            x, y = left + cell * (0.1 + i % across), top + cell * (0.1 + i // across)
            fill = 'class="free"' if held is None else f'fill="var(--c-p{held % COLORS})"'
            name = "unused" if held is None else escape(names[held])
            body.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{0.9 * cell:.1f}" height="{0.9 * cell:.1f}" {fill}>'
                f"<title>core {core}: {name}</title></rect>"
            )
    return _svg(round(rows * high + 4, 1), body, title)


def _svg(height: float, body: Sequence[str], title: str) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}">{"".join(body)}</svg>'


def _decades(low: float, high: float) -> tuple[int, int]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return first, max(last, first + 1)


def _power(power: int) -> str:
    if -3 <= power < 4:
        return _short(10.0**power)
    return f"10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _log_ticks(low: float, high: float) -> list[float]:
    """At most six of 1, 2, 5 times powers of ten, or powers alone where these are enough."""
    for steps in ((1, 2, 5), (1,), (1,)):
        found = [
            factor * 10.0**power
            for power in range(math.floor(low) - 1, math.ceil(high) + 1)
            for factor in steps
            if low <= math.log10(factor * 10.0**power) <= high
        ]
        if len(found) <= 6:
            break
    return found[:: max(1, math.ceil(len(found) / 6))] or [10.0 ** ((low + high) / 2)]


def _ticks(low: float, high: float) -> list[float]:
    span = (high - low) or 1
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
