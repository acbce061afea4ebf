"""The page of the command line, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ashnets.cli import app

PAGE = "reference/commands.md"


def on_files(files: Files, config: MkDocsConfig) -> None:
    files.append(File.generated(config, PAGE, content=page()))


def page() -> str:
    """Usage, help and options of every command, in the order of ``ashnets --help``."""
    parts = ["# Command line\n\nThis page is what `ashnets COMMAND --help` prints.\n"]
    for command, context in commands():
        parts.append(f"## {context.command_path}\n\n{section(command, context)}")
    return "\n".join(parts)


def commands() -> Iterator[tuple[typer.core.TyperCommand | typer.core.TyperGroup, typer.Context]]:
    """Every command and group with its context."""
    root = typer.main.get_command(app)
    waiting = [(root, root.make_context("ashnets", [], resilient_parsing=True))]
    while waiting:
        command, context = waiting.pop(0)
        yield command, context
        if isinstance(command, typer.core.TyperGroup):
            below = command.commands.items()
            waiting += [
                (one, one.make_context(name, [], parent=context, resilient_parsing=True)) for name, one in below
            ]


def section(command: typer.core.TyperCommand | typer.core.TyperGroup, context: typer.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"```text\n{usage}\n```", *map(paragraph, (command.help or "").split("\n\n"))]
    records = [found for one in command.get_params(context) if (found := one.get_help_record(context))]
    rows = [f"| `{cell(name)}` | {cell(text)} |" for name, text in records]
    return "\n\n".join([*parts, "\n".join(["| option | |", "|---|---|", *rows])]) + "\n"


def paragraph(text: str) -> str:
    """A paragraph of a help text; click keeps the lines of one that starts with ``\\b``, examples among them."""
    if not text.startswith("\b\n"):
        return " ".join(text.split())
    head, *lines = text[2:].splitlines()
    if head == "Examples:":
        return "Examples:\n\n```sh\n" + "\n".join(line.removeprefix("  ") for line in lines) + "\n```"
    return "  \n".join([head, *lines])  # a line of its own each


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")
