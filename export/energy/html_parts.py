"""What the pages and tables of a report share: numbers with units, tables, keys of colors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

UNITS = (("pJ", 1.0), ("nJ", 1e3), ("µJ", 1e6), ("mJ", 1e9), ("J", 1e12))
TIMES = (("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9))


def energy(picojoules: float) -> str:
    """An energy with three digits and a suitable unit."""
    if not picojoules:
        return "–"
    name, size = next((unit for unit in reversed(UNITS) if abs(picojoules) >= unit[1]), UNITS[0])
    return f"{digits(picojoules / size)} {name}"


def duration(nanoseconds: float) -> str:
    """A time with three digits and a suitable unit."""
    name, length = next((unit for unit in reversed(TIMES) if nanoseconds >= unit[1]), TIMES[0])
    return f"{digits(nanoseconds / length)} {name}"


def interval(bounds: dict[str, float]) -> str:
    """From low to high."""
    return f"{energy(bounds['low'])} to {energy(bounds['high'])}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], total: bool = False) -> str:
    """Rows under their heads; the last one is a sum where ``total``."""
    listed = list(rows)
    body = []
    for i, row in enumerate(listed):
        mark = " class='sum'" if total and i == len(listed) - 1 else ""
        body.append(f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<div class='wide'><table><thead><tr>{names}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def legend(entries: Iterable[tuple[str, str, bool]]) -> str:
    """A legend: (color, label, dashed)."""
    items = "".join(
        f"<li><i{' class=dash' if dashed else ''} style='background:var(--c-{color});color:var(--c-{color})'></i>"
        f"{escape(label)}</li>"
        for color, label, dashed in entries
    )
    return f"<ul class='key'>{items}</ul>"


def number(value: float) -> str:
    """A whole number with commas."""
    return f"{value:,.0f}"


def digits(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def memory_size(bytes_: int) -> str:
    """Bytes, in KiB or MiB from one of them on."""
    if bytes_ < 1024:
        return f"{bytes_} B"
    return f"{bytes_ / 1024:,.0f} KiB" if bytes_ < 1 << 20 else f"{bytes_ / (1 << 20):,.2f} MiB"
