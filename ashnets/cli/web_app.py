"""``ashnets app``: a model in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from ashnets.cli import completing


def app(
    name: Annotated[
        str,
        typer.Argument(help="Model: a name, a folder or a Hub repository.", autocompletion=completing.models),
    ] = "ashnets-tiny",
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            help="Folder of images, or the name or folder of an index. Default: the bundled gallery.",
            autocompletion=completing.indexes,
        ),
    ] = None,
    chip: Annotated[
        str | None, typer.Option("--chip", help="Chip for the placement: loihi1, or your own .yaml file.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on. 0.0.0.0 opens the page to other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port. Default: the first free one from 7860 on.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
) -> None:
    """Serve a page with a model in the browser.

    Search the images by text or by image; ask, if the model is fine-tuned for the task vqa; look at the spikes, rates
    and summary ratio of an image, and at the texts that its spikes alone find; count its energy and place it on a chip.
    A folder of images is indexed first. Ctrl+C stops the page.

    The page is served on this machine alone. It loads nothing from other machines and sends nothing to them. With
    --host, everybody who reaches the address can use it: there is no password.

    \b
    Examples:
      ashnets app
      ashnets app --images my-images --open
      ashnets app runs/vqa/model --images holidays --port 8080
    """
    import ashnets

    ashnets.app(
        name,
        images=images,
        chip=chip,
        host=host,
        port=port,
        open_browser=open_browser,
        report=lambda line: typer.echo(line, err=True),
    )
