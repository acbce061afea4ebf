"""``ashnets demo``, ``ashnets list``, ``ashnets describe``: inspect models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.printing import as_json

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Output folder for figures and the exported graph.")
    ] = Path("out/demo"),
) -> None:
    """Run the bundled model on bundled images.

    ashnets-tiny retrieves images for sentences, and sentences for images. The demo plots the spikes of its spiking
    branch, exports the branch to ONNX and compares every spike. It takes at most two minutes and needs no network.

    \b
    Examples:
      ashnets demo
      ashnets demo --output somewhere/else
    """
    from ashnets.cli.demo import run

    run(output)


def list_(
    pattern: Annotated[
        str | None, typer.Argument(help="Show only names that match this pattern, for example '*-t5'.")
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option("--pretrained/--untrained", help="Show only models with trained weights, or only models without."),
    ] = None,
    max_parameters: Annotated[
        float | None,
        typer.Option("--max-parameters", help="Show only models with at most this many million parameters."),
    ] = None,
    with_numbers: Annotated[
        bool, typer.Option("--numbers", "-n", help="Also show parameters, GMAC, spikes, energy, speed and results.")
    ] = False,
    as_json_: JsonOption = False,
) -> None:
    """List the names of the models.

    Prints one name per line. A name is ashnets-BACKBONE, followed by the differences from the default: -t5 for five
    time steps, -ann for the variant without spikes. Put a pattern in quotes, or the shell expands it. With --numbers,
    prints a table of counted and measured values; a dash means not measured. The paper's numbers are not included. If
    no model matches, the exit status is 6.

    \b
    Examples:
      ashnets list
      ashnets list --pretrained --numbers
      ashnets list 'ashnets-r101*' --max-parameters 150
      ashnets list '*-ann' --numbers --json
    """
    from ashnets.errors import UnknownModelError
    from ashnets.terminal import columns
    from ashnets.terminal import table as aligned
    from ashnets.zoo.numbers import choose, columns_and_rows, numbers, table
    from ashnets.zoo.registry import matching

    names = choose(pattern, pretrained, max_parameters)
    if not names:
        asked = "all these options" if pattern is None or matching(pattern) else repr(pattern)
        raise UnknownModelError(f"no model matches {asked}; `ashnets list` shows all names")
    if as_json_:
        typer.echo(as_json([numbers(name) for name in names] if with_numbers else names))
    elif with_numbers and (width := columns()):
        head, rows = columns_and_rows(names)
        typer.echo(aligned(head, rows, [False] * 2 + [True] * (len(head) - 3) + [False], width))
    else:
        typer.echo(table(names).rstrip() if with_numbers else "\n".join(names))


def describe(
    name: Annotated[str, typer.Argument(help="Name from `ashnets list`.", autocompletion=completing.models)],
    as_json_: JsonOption = False,
) -> None:
    """Describe one model.

    Shows its configuration, the parameters of each part, its weights, license and results.

    \b
    Examples:
      ashnets describe ashnets-tiny
      ashnets describe ashnets-r101-t5 --json
    """
    import ashnets

    description = ashnets.describe(name)
    typer.echo(as_json(description.to_dict()) if as_json_ else description.to_text())
