"""How commands print: JSON for programs, indented ``key: value`` lines for people."""

from __future__ import annotations

import codecs
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from ashnets.files import JsonObject
from ashnets.terminal import columns, table

_UNITS = {"bytes": "B", "flops": "FLOP", "parameters": ""}
_TIMES = ((3600, "h"), (60, "min"), (1, "s"))


PLAIN = "ashnets.plain"  # an error handler for encoding, like "strict"
_SIGNS = {
    "–": "-",
    "−": "-",
    "·": "-",
    "→": "->",
    "…": "...",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "’": "'",
    "“": '"',
    "”": '"',
}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


codecs.register_error(PLAIN, _in_ascii)


def as_json(value: object) -> str:
    """``value`` as readable JSON in ASCII, which every terminal and pipe takes; paths become strings.

    A file name that is not valid Unicode is kept: Python's ``json`` restores it exactly.
    """
    return json.dumps(value, indent=2, default=str)


def as_text(value: Mapping[str, object]) -> str:
    """A mapping as indented lines.

    A mapping of plain values is printed on its parent's line (``text_to_image: R@1 0.31, R@10 0.66``), a list of
    sentences below it, and a list of mappings with the same keys as a table below it.
    """
    return "\n".join(_lines(value, indent=0))


def as_table(rows: Sequence[Mapping[str, object]], keys: Sequence[str]) -> str:
    """Rows as a table with ``keys`` as header, no wider than the terminal; numbers are right-aligned."""
    return _table(rows, keys, columns())


def _table(rows: Sequence[Mapping[str, object]], keys: Sequence[str], width: int | None) -> str:
    cells = [[_plain(row[key]) for key in keys] for row in rows]
    numbers = [bool(rows) and isinstance(rows[0][key], int | float) for key in keys]
    return table(keys, cells, numbers, width)


def show(value: Mapping[str, object], *, json_wanted: bool) -> None:
    """Print a result on stdout."""
    typer.echo(as_json(value) if json_wanted else as_text(value))


def warn(result: JsonObject) -> None:
    """Print the ``warnings`` of a result on stderr, so that stdout contains only the result."""
    for text in result.get("warnings", ()):
        typer.echo(f"warning: {text}", err=True)


def tell_run(result: JsonObject, *, dry_run: bool, json_wanted: bool) -> None:
    """Print the result of a run; for people its sentences, and those of a dry run before its numbers."""
    if json_wanted:
        show(result, json_wanted=True)
        return
    numbers = {key: value for key, value in result.items() if key != "told"}
    for sentence in result.get("told", ()):
        typer.echo(sentence)
    if dry_run:
        typer.echo("")
        show(with_units(numbers), json_wanted=False)


class InterruptibleGroup(typer.core.TyperGroup):
    """Commands that say at Ctrl-C how to go on: by the interruption's message, or that the same command does."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            if os.environ.get("RANK", "0") == "0":  # under torchrun, only the first process prints
                typer.echo(f"\n{str(stopped) or 'interrupted; the same command starts again'}", err=True)
            raise


def with_units(value: Mapping) -> JsonObject:
    """Format numbers whose keys name their unit (``bytes_weights``, ``flops_run``, ``seconds_run``) for people."""
    found: JsonObject = {}
    for key, item in value.items():
        unit = _UNITS.get(key.partition("_")[0])
        if isinstance(item, Mapping):
            found[key] = with_units(item)
        elif key == "seconds" or key.startswith("seconds_"):
            size, name = next(part for part in _TIMES if item >= part[0] or part is _TIMES[-1])
            found[key] = f"{item / size:.3g} {name}"
        elif unit and isinstance(item, int | float):
            power = min(5, max(0, int(math.log10(max(item, 1)) // 3)))
            found[key] = f"{item / 1000**power:.3g} {' kMGTP'[power].strip()}{unit}"
        else:
            found[key] = item
    return found


def _lines(value: Mapping[str, object], indent: int) -> Iterator[str]:
    for key, item in value.items():
        head = f"{'  ' * indent}{key}:"
        if isinstance(item, Mapping) and any(isinstance(part, Mapping) for part in item.values()):
            yield head
            yield from _lines(item, indent + 1)
        elif isinstance(item, list | tuple) and item and all(isinstance(part, Mapping) for part in item):
            yield head
            margin, width = "  " * (indent + 1), columns()
            rows = [{name.replace("_", " "): part for name, part in row.items()} for row in item]
            below = _table(rows, list(rows[0]), None if width is None else width - len(margin))
            yield from (f"{margin}{line}" for line in below.splitlines())
        elif isinstance(item, Mapping):
            yield f"{head} {', '.join(f'{name} {_plain(part)}' for name, part in item.items()) or '–'}"
        elif isinstance(item, list | tuple) and any(isinstance(part, str) and " " in part for part in item):
            yield head
            yield from (f"{'  ' * (indent + 1)}{part}" for part in item)
        else:
            yield f"{head} {_plain(item)}"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(_plain(part) for part in value)
    return str(value)
