"""Tables for a terminal. Cells are never cut: a wide table is wrapped or printed as ``name: value`` lines."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

BETWEEN = "  "
LEAST = 16  # minimum width in columns of a last cell of words that continues in the next line
MARGIN = "  "


def columns() -> int | None:
    """Width of the terminal in columns; None if stdout is a pipe or a file, where lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool], width: int | None = None) -> str:
    """Rows under the names of their columns, as a table if it fits ``width``.

    If it does not fit, the names are wrapped; then, columns that are equal in all rows are printed above the table;
    last, each row becomes a block of lines. A last column of words may continue in the next line.

    Args:
        numbers: which columns are right-aligned.
        width: columns of the terminal; None for no limit.
    """
    for names in ([[name] for name in head], [name.split() or [""] for name in head]):
        lines = _aligned(names, rows, numbers)
        if width is None or _fits(names, rows, numbers, width):
            return "\n".join(lines)
    same = [i for i in range(len(head)) if len(rows) > 1 and len({row[i] for row in rows}) == 1]
    others = [i for i in range(len(head)) if i not in same]
    if same and others:
        above = _folded("; ".join(_said(head[i], rows[0][i]) for i in same), width, "", MARGIN)
        rest = table(_of(head, others), [_of(row, others) for row in rows], _of(numbers, others), width)
        return f"{above}\n{rest}"
    return "\n".join(_block(head, row, width) for row in rows)


def _aligned(names: list[list[str]], rows: Sequence[Sequence[str]], numbers: Sequence[bool]) -> list[str]:
    depth = max(map(len, names), default=0)
    above = [[""] * (depth - len(name)) + name for name in names]  # names end in the same line
    cells = [*([column[line] for column in above] for line in range(depth)), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    return [
        BETWEEN.join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in cells
    ]


def _fits(names: list[list[str]], rows: Sequence[Sequence[str]], numbers: Sequence[bool], width: int) -> bool:
    if numbers and not numbers[-1]:  # its words may continue in the next line
        rows = [[*row[:-1], row[-1][:LEAST]] for row in rows]
    return max(map(len, _aligned(names, rows, numbers)), default=0) <= width


def _block(head: Sequence[str], row: Sequence[str], width: int | None) -> str:
    first, *others = [_said(name, cell) for name, cell in zip(head, row, strict=True) if cell]
    lines = [_folded(first, width, "", MARGIN), *(_folded(one, width, MARGIN, 2 * MARGIN) for one in others)]
    return "\n".join(lines)


def _said(name: str, cell: str) -> str:
    return f"{name}: {cell}" if name else cell


def _folded(text: str, width: int | None, first: str, further: str) -> str:
    if width is None:
        return first + text
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


def _of(items: Sequence, chosen: Sequence[int]) -> list:
    return [items[i] for i in chosen]
