"""``ashnets data …``: build the corpora that models are trained and tested on; check your own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show

CORPUS = Path("data/pictograms")
GALLERY = Path("out/gallery")

app = typer.Typer(no_args_is_help=True, help="Build corpora to train and test on; check your own pictures.")


@app.command()
def pictograms(
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder to make: parquet files and a manifest.")
    ] = CORPUS,
    cache: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep the downloaded packages here, for the next build.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the pictures in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the held-out concepts and of the captions.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a corpus that is already there.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Say what is being done.")] = True,
) -> None:
    """Build the pictogram corpus.

    One concept drawn by many vendors, with captions. It takes openly licensed drawings from npm packages of fixed
    versions (npm must be on PATH). Two vendors and a set of words are held out whole for testing. The manifest
    names each package, licence and checksum.

    \b
    Examples:
      ashnets data pictograms
      ashnets data pictograms --output data/small --size 64 --cache data/npm
    """
    from ashnets.data import pictograms as corpus

    manifest = corpus.build(output, cache=cache, size=size, seed=seed, progress=progress, force=force)
    show(manifest, json_wanted=True)


@app.command()
def gallery(
    corpus: Annotated[
        Path, typer.Option("--corpus", file_okay=False, help="A corpus that `ashnets data pictograms` built.")
    ] = CORPUS,
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder to make.")] = GALLERY,
    vendor: Annotated[str, typer.Option(help="Whose held-out drawings.")] = "twitter",
    seed: Annotated[int, typer.Option(help="Seed of the choice.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a gallery that is already there.")] = False,
) -> None:
    """Pick a small gallery from a corpus.

    The demo and the tests use it. Its attribution is written beside the pictures.

    \b
    Examples:
      ashnets data gallery
      ashnets data gallery --corpus data/small --output out/small-gallery
    """
    from ashnets.data.corpus import open_corpus
    from ashnets.data.pictograms import build_gallery

    count = build_gallery(open_corpus(corpus), output, vendor=vendor, seed=seed, force=force)
    typer.echo(f"{output}: {count} pictures")


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A corpus, a .parquet file or a folder of them, a folder of pictures.")],
    as_json_: JsonOption = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Show a bar while decoding.")] = True,
) -> None:
    """Look through pictures and captions before training on them.

    It says how the data is understood (splits, captions, concepts), decodes every picture and names the first 20 that
    cannot be decoded; the exit code is then 4. Without a validation split, 5 % of the pictures are held out as one.

    \b
    Examples:
      ashnets data check my-pictures
      ashnets data check data/pictograms --json
    """
    from ashnets.data.checking import check_source
    from ashnets.errors import DataError

    found = check_source(path, progress)
    if as_json_:
        show(found, json_wanted=True)
    else:
        reasons = found.pop("reasons")
        show(found, json_wanted=False)
        for reason in reasons:
            typer.echo(f"  {reason}")
        if found["corrupt"] > len(reasons):
            typer.echo(f"  and {found['corrupt'] - len(reasons)} more")
    if found["corrupt"]:
        raise typer.Exit(DataError.exit_code)
