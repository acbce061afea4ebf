"""The typer application: its commands, its errors, its exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ashnets import __version__
from ashnets.cli import (
    compare,
    data,
    energy,
    experiment,
    export,
    models,
    publish,
    quantize,
    search,
    show,
    tasks,
    training,
    web_app,
)
from ashnets.cli.printing import PLAIN, InterruptibleGroup
from ashnets.errors import AshNetsError, one_line

app = typer.Typer(
    name="ashnets",
    cls=InterruptibleGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ashnets {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """ASH-Nets: vision-language models that combine a spiking and a convolutional image encoder.

    \b
    Examples:
      ashnets demo                       run the bundled model on bundled images
      ashnets list                       list the names of all models
      ashnets describe ashnets-tiny      show a model's configuration and parameters
      ashnets COMMAND --help             show the help of a command

    \b
    Exit status: 0 success, 1 other error, 2 wrong usage or configuration, 3 invalid input,
    4 invalid data, 5 invalid weights, 6 unknown model, 7 missing optional dependency, 8 training
    cannot continue, 9 the result cannot be written, 130 interrupted. With ASHNETS_DEBUG=1, an
    error prints its traceback.
    """


app.command("demo")(models.demo)
app.command("list")(models.list_)
app.command("describe")(models.describe)
app.command("train")(training.train)
app.command("finetune")(tasks.finetune)
app.command("evaluate")(tasks.evaluate)
app.command("experiment")(experiment.experiment)
app.command("search")(search.search)
app.command("show")(show.show)
app.command("ask")(search.ask)
app.command("index")(search.index)
app.command("app")(web_app.app)
app.command("quantize")(quantize.quantize)
app.command("export")(export.export)
app.command("energy")(energy.energy)
app.command("compare")(compare.compare)
app.command("publish")(publish.publish)
app.command("verify")(publish.verify)
app.add_typer(data.app, name="data")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and return its exit status.

    An ``AshNetsError`` prints its message on stderr and returns its ``exit_code``; an error of the operating
    system (no permission, disk full) prints one line and returns 1; anything else is a bug and is raised.
    ``ASHNETS_DEBUG=1`` raises everything. Characters that the terminal cannot encode are replaced by ASCII ones.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="ashnets")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    except AshNetsError as error:
        if _debug():
            raise
        return _report(str(error), error.exit_code)
    except OSError as error:
        if _debug():
            raise
        return _report(one_line(error), 1)
    return 0


def _debug() -> bool:
    return os.environ.get("ASHNETS_DEBUG", "") not in ("", "0")


def _report(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code
