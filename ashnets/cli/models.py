"""``ashnets demo``, ``ashnets list``, ``ashnets describe``: look at the models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.printing import as_json

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the images and the exported graph.")
    ] = Path("out/demo"),
) -> None:
    """See the bundled model at work.

    ashnets-tiny retrieves images for sentences and sentences for images. Its spiking branch is shown at
    work, exported to ONNX and compared spike by spike. Two minutes at most; no network.

    \b
    Examples:
      ashnets demo
      ashnets demo --output somewhere/else
    """
    from ashnets.cli.demo import run

    run(output)


def list_(
    pattern: Annotated[str | None, typer.Argument(help="Only names that match, for example '*-t5'.")] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option("--pretrained/--untrained", help="Only models with weights, or only those without."),
    ] = None,
    max_parameters: Annotated[
        float | None, typer.Option("--max-parameters", help="Only models of at most that many million parameters.")
    ] = None,
    with_numbers: Annotated[
        bool, typer.Option("--numbers", "-n", help="Also parameters, GMAC, spikes, energy, speed and results.")
    ] = False,
    as_json_: JsonOption = False,
) -> None:
    """List the names of the models.

    One a line. A name is ashnets-BACKBONE with what differs from the default behind it: -t5 for five steps,
    -ann for the variant without spikes. Quote a pattern, or the shell expands it. With --numbers, a table: what
    was counted and what was measured here; a dash where nothing was. The paper's own numbers are not among them.

    \b
    Examples:
      ashnets list
      ashnets list --pretrained --numbers
      ashnets list 'ashnets-r101*' --max-parameters 150
      ashnets list '*-ann' --numbers --json
    """
    from ashnets.terminal import columns
    from ashnets.terminal import table as aligned
    from ashnets.zoo.numbers import choose, columns_and_rows, numbers, table

    names = choose(pattern, pretrained, max_parameters)
    if as_json_:
        typer.echo(as_json([numbers(name) for name in names] if with_numbers else names))
    elif with_numbers and names and (width := columns()):
        head, rows = columns_and_rows(names)
        typer.echo(aligned(head, rows, [False] * 2 + [True] * (len(head) - 3) + [False], width))
    elif names:
        typer.echo(table(names).rstrip() if with_numbers else "\n".join(names))
    else:
        typer.echo("no model matches; `ashnets list` shows them all", err=True)


def describe(
    name: Annotated[str, typer.Argument(help="A name that `ashnets list` shows.", autocompletion=completing.models)],
    as_json_: JsonOption = False,
) -> None:
    """Describe one model.

    Its configuration, its parameters part by part, weights, license and results.

    \b
    Examples:
      ashnets describe ashnets-tiny
      ashnets describe ashnets-r101-t5 --json
    """
    import ashnets

    description = ashnets.describe(name)
    typer.echo(as_json(description.to_dict()) if as_json_ else description.to_text())
