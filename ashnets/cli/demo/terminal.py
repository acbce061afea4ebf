"""What the demo prints: numbered steps, tables, a progress bar; without colors and bars if stdout is not a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.padding import Padding
from rich.progress import track

from ashnets.terminal import table

Item = TypeVar("Item")
INDENT = 4 * " "


class Terminal:
    """Numbered steps on stdout."""

    def __init__(self, steps: int) -> None:
        self.console = Console(highlight=False)
        # A pipe has no width; 80 columns would break the tables.
        if not self.console.is_terminal:
            self.console.width = 110
        self.steps = steps
        self.done = 0

    def step(self, title: str) -> None:
        """Begin the next step."""
        self.done += 1
        self.console.print(f"\n[bold cyan]{self.done}/{self.steps}[/] [bold]{title}[/]")

    def say(self, text: str) -> None:
        """A sentence under the step."""
        self.console.print(Padding(text, (0, 0, 0, 4), expand=False), markup=False)

    def file(self, path: Path, what: str) -> None:
        """A file that was written."""
        line = Padding(f"→ {path}: {what}", (0, 0, 0, 4), expand=False)
        self.console.print(line, style="green", markup=False, soft_wrap=True)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> None:
        """A table whose first ``words`` columns are words and the others numbers."""
        numbers = [i >= words for i in range(len(head))]
        text = table(head, list(rows), numbers, self.console.width - len(INDENT))
        self.console.print(f"\n{textwrap.indent(text, INDENT)}\n", markup=False, soft_wrap=True)

    def track(self, items: Sequence[Item], what: str) -> Iterable[Item]:
        """``items`` with a progress bar."""
        if not self.console.is_terminal:
            return items
        return track(items, description=f"    {what}", console=self.console, transient=True)
