"""Results of a benchmark: rows and targets, as a table, JSON and CSV."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measuring import quartiles, ratios
from operator_profile import largest
from rich.console import Console
from rich.table import Table

from ashnets.files import write_csv, write_json

UNITS = {
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")),
    "": ((1, ""),),
}


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        rounds: number of rounds of each interleaved run.
        quick: use small sizes only.
        pairs: number of pairs in a step of the whole model; None is the default of each model.
        memory: maximum number of bytes for a candidate.
    """

    rounds: int
    seed: int
    quick: bool
    pairs: int | None
    memory: float


@dataclass(frozen=True)
class Row:
    """The ``ratios`` of the rounds, their median and quartiles; ``over`` and ``under`` are medians in ``unit``."""

    section: str
    case: str
    what: str
    ratio: float
    low: float
    high: float
    over: float
    under: float
    unit: str
    rounds: int
    ratios: list[float]


@dataclass(frozen=True)
class Target:
    """A target and the measured value."""

    text: str
    found: float
    limit: float
    at_least: bool

    @property
    def reached(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit


@dataclass
class Report:
    """The results of the sections."""

    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add_ratio(
        self, section: str, case: str, what: str, over: Sequence[float], under: Sequence[float], unit: str = "s"
    ) -> float:
        """Add a row for ``over`` / ``under``; both have one number for each round."""
        each = ratios(over, under)
        value, low, high = quartiles(each)
        medians = statistics.median(over), statistics.median(under)
        self.rows.append(Row(section, case, what, value, low, high, *medians, unit, len(over), each))
        return value

    def aim(self, text: str, found: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Add a target: a minimum or a maximum."""
        limit = at_most if at_least is None else at_least
        assert limit is not None
        self.targets.append(Target(text, found, limit, at_least is not None))

    def note(self, name: str, value: object) -> None:
        """Add a value to the JSON only."""
        self.notes[name] = value

    def profile(self, title: str, times: dict[str, float]) -> None:
        """Add a profile: milliseconds for each operator."""
        self.profiles[title] = times

    def progress(self, text: str) -> None:
        print(f"  {time.perf_counter() - self.started:5.0f} s  {text}", file=sys.stderr, flush=True)

    def print(self, title: str) -> None:
        console = Console(width=None if sys.stdout.isatty() else 150)
        table = Table(title=title)
        table.add_column("section")
        table.add_column("case")
        table.add_column("ratio of")
        for name in ("ratio", "quartiles", "of", "to", "rounds"):
            table.add_column(name, justify="right")
        before = ""
        for row in self.rows:
            if before not in ("", row.section):
                table.add_section()
            spread = f"{row.low:.2f} to {row.high:.2f}" if row.rounds > 1 else ""
            table.add_row(
                row.section if row.section != before else "",
                row.case,
                row.what,
                f"{row.ratio:.3g}",
                spread,
                amount(row.over, row.unit),
                amount(row.under, row.unit),
                str(row.rounds),
            )
            before = row.section
        console.print(table)
        if self.targets:
            aims = Table(title="targets")
            for name in ("aimed at", "limit", "found", ""):
                aims.add_column(name, justify="left" if name in ("aimed at", "") else "right")
            for target in self.targets:
                limit = f"{'≥' if target.at_least else '≤'} {target.limit:.3g}"
                aims.add_row(target.text, limit, f"{target.found:.3g}", "reached" if target.reached else "MISSED")
            console.print(aims)
        for title, times in self.profiles.items():
            console.print(f"{title}: {largest(times)}")

    def write(self, folder: Path, stem: str, about: dict[str, object]) -> None:
        """``stem``.json with everything, ``stem``.csv with the rows."""
        rows = [asdict(row) for row in self.rows]
        targets = [{**asdict(target), "reached": target.reached} for target in self.targets]
        found = {"rows": rows, "targets": targets, "notes": self.notes, "profiles": self.profiles}
        write_json(folder / f"{stem}.json", {**about, **found})
        write_csv(folder / f"{stem}.csv", [{key: row[key] for key in row if key != "ratios"} for row in rows])


def amount(value: float, unit: str) -> str:
    """``value`` with a readable unit."""
    size, name = next((step for step in UNITS[unit] if value >= step[0]), UNITS[unit][-1])
    return f"{value / size:.3g} {name}".rstrip()
