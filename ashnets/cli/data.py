"""``ashnets data …``: build the corpora that models are trained and tested on; check own images and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show

CORPUS = Path("data/pictograms")
GALLERY = Path("out/gallery")

app = typer.Typer(no_args_is_help=True, help="Build corpora to train and test on; check own images and benchmarks.")


@app.command()
def pictograms(
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder to make: parquet files and a manifest.")
    ] = CORPUS,
    cache: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep the downloaded packages here, for the next build.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the images in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the held-out concepts and of the captions.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a corpus that is already there.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Say what is being done.")] = True,
    as_json_: JsonOption = False,
) -> None:
    """Build the pictogram corpus.

    One concept drawn by many vendors, with captions. It takes openly licensed drawings from npm packages of fixed
    versions (npm must be on PATH). Two vendors and a set of words are held out whole for testing. The manifest
    names each package, license and checksum.

    \b
    Examples:
      ashnets data pictograms
      ashnets data pictograms --output data/small --size 64 --cache data/npm
    """
    from ashnets.data.pictograms import building as corpus

    manifest = corpus.build(output, cache=cache, size=size, seed=seed, progress=progress, force=force)
    if as_json_:
        show(manifest, json_wanted=True)
        return
    splits = {name: split["rows"] for name, split in manifest["splits"].items()}
    show({"corpus": output, "images": sum(splits.values()), "splits": splits}, json_wanted=False)


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

    The demo and the tests use it. Its attribution is written beside the images.

    \b
    Examples:
      ashnets data gallery
      ashnets data gallery --corpus data/small --output out/small-gallery
    """
    from ashnets.data.corpus import open_corpus
    from ashnets.data.pictograms.building import build_gallery

    count = build_gallery(open_corpus(corpus), output, vendor=vendor, seed=seed, force=force)
    typer.echo(f"{output}: {count} images")


@app.command()
def check(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="PATH|DATASET",
            help="Your own data: a corpus, parquet files, a folder of images. Or the name of a published benchmark.",
            autocompletion=completing.benchmarks,
        ),
    ],
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="The benchmark's folder.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where the benchmark's images lie, if not in PATH.")
    ] = None,
    as_json_: JsonOption = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Show a bar while reading.")] = True,
) -> None:
    """Look through data before training on it.

    Images of your own: it says how they are understood (splits, captions, concepts), decodes every image and
    names the first 20 that cannot be decoded. Files that are no images are counted by their suffix. Without a
    validation split, 5 % of the images are held out as one.

    A benchmark (coco-captions, flickr30k, visual-genome, vqa-v2, vqa-cp-v2, coco-qa, nlvr2, snli-ve, easy-vqa), in
    the files of its makers: it says which splits are there and how many records they should have, which files are
    missing and where they come from, and names the first 20 broken lines, repeated ids and missing images by file
    and line. Images are looked for, not decoded.

    The exit code is 4 where anything is broken, repeated or missing; files of other splits may be missing.

    \b
    Examples:
      ashnets data check my-images
      ashnets data check data/pictograms --json
      ashnets data check nlvr2 data/nlvr2
      ashnets data check vqa-v2 data/vqa --images data/coco
    """
    from ashnets.errors import DataError

    if path is None:
        sound = _check_own(Path(dataset), images, as_json_, progress)
    else:
        sound = _check_benchmark(dataset, path, images, as_json_, progress)
    if not sound:
        raise typer.Exit(DataError.exit_code)


def _check_own(path: Path, images: Path | None, as_json_: bool, progress: bool) -> bool:
    from ashnets.data.benchmarks import BENCHMARKS
    from ashnets.data.checking import check_source
    from ashnets.errors import ConfigurationError
    from ashnets.words import command

    if str(path) in BENCHMARKS and not path.exists():
        again = command("data", "check", path, "PATH")
        raise ConfigurationError(f"{path} is a benchmark: give its folder too, `{again}`.")
    if images is not None:
        raise ConfigurationError("--images goes with a benchmark: `ashnets data check DATASET PATH --images DIR`.")
    found = check_source(path, progress)
    faults = found["corrupt"] + found["unreadable"]
    _show(found, faults, as_json_)
    return not faults


def _check_benchmark(name: str, path: Path, images: Path | None, as_json_: bool, progress: bool) -> bool:
    from ashnets.data.checking import check_benchmark

    found = check_benchmark(name, path, images, progress)
    faults = sum(found["faults"].values())
    _show(found, faults, as_json_)
    return not faults


def _show(found: dict[str, Any], faults: int, as_json_: bool) -> None:
    """The reasons stand below, one a line, where people read them."""
    if as_json_:
        show(found, json_wanted=True)
        return
    reasons = found["reasons"]
    show({key: value for key, value in found.items() if key != "reasons"}, json_wanted=False)
    for reason in reasons:
        typer.echo(f"  {reason}")
    if faults > len(reasons):
        typer.echo(f"  and {faults - len(reasons)} more")
