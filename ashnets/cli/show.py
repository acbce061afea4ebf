"""``ashnets show``: what the spiking branch makes of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_json, as_table


def show(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    model: Annotated[
        str, typer.Option("--model", help="Model name or folder.", autocompletion=completing.models)
    ] = "ashnets-tiny",
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts",
            help="Texts to compare the image with: a .txt file with one text a line, or captioned images. Default: the "
            "names of the bundled images.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="Number of nearest texts to show.")] = 5,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", dir_okay=False, metavar="FILE.html", help="Also write a page with images of the spikes."
        ),
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Show what the spiking branch makes of an image.

    Prints the firing rate of each layer, the summary ratio of each visual token, and the nearest texts with the spiking
    branch, without it, and by spikes alone. The page also shows the spikes of each layer and the summary ratio over the
    image.

    \b
    Examples:
      ashnets show cat.png
      ashnets show my-images/heron.jpg --model runs/mine/model --texts my-images --page heron.html
      ashnets show cat.png --top 3 --json
    """
    import ashnets

    shown = ashnets.show(image, model=model, texts=texts, top=top, page=page)
    if as_json_:
        typer.echo(as_json(shown.to_dict()))
        return
    rows, nearest = shown.rows(), shown.nearest_rows()
    ratios = shown.summary_ratio
    grid = "\n".join("  " + " ".join(f"{ratio:.2f}" for ratio in line) for line in ratios)
    typer.echo(as_table(rows, list(rows[0])))
    typer.echo(f"\nsummary ratio of each token: mean {ratios.mean():.3f}\n{grid}\n")
    typer.echo(as_table(nearest, list(nearest[0])))
