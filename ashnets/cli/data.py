"""``ashnets data …``: build corpora for training and testing; check your own images and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show

CORPUS = Path("data/pictograms")
GALLERY = Path("out/gallery")

app = typer.Typer(
    no_args_is_help=True, help="Build corpora for training and testing; check your own images and benchmarks."
)


@app.command()
def pictograms(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", file_okay=False, help="Folder to create, with parquet files and a manifest."),
    ] = CORPUS,
    cache: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for downloaded packages, reused by the next build.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Height and width of the images in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Random seed for the held-out concepts and the captions.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing corpus.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Show progress, or print nothing.")] = True,
    as_json_: JsonOption = False,
) -> None:
    """Build the pictogram corpus.

    The corpus contains drawings of the same concepts by many vendors, with captions. The drawings are openly licensed
    and come from npm packages with pinned versions (npm must be on PATH). Two vendors and a set of concepts are held
    out for testing. The manifest lists each package with its license and checksum.

    \b
    Examples:
      ashnets data pictograms
      ashnets data pictograms --output data/small --size 64 --cache data/npm
    """
    from ashnets.data.pictograms.building import build

    manifest = build(output, cache=cache, size=size, seed=seed, progress=progress, force=force)
    if as_json_:
        show(manifest, json_wanted=True)
        return
    splits = {name: split["rows"] for name, split in manifest["splits"].items()}
    show({"corpus": output, "images": sum(splits.values()), "splits": splits}, json_wanted=False)


@app.command()
def gallery(
    corpus: Annotated[
        Path, typer.Option("--corpus", file_okay=False, help="A corpus built by `ashnets data pictograms`.")
    ] = CORPUS,
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder to create.")] = GALLERY,
    vendor: Annotated[str, typer.Option(help="The held-out vendor whose drawings are used.")] = "twitter",
    seed: Annotated[int, typer.Option(help="Random seed for the selection.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing gallery.")] = False,
) -> None:
    """Select a small gallery of images from a corpus.

    The demo and the tests use this gallery. ATTRIBUTION.md is written next to the images.

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
            help="Your own data (a corpus, parquet files or a folder of images), or the name of a published benchmark.",
            autocompletion=completing.benchmarks,
        ),
    ],
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="The benchmark's folder.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of the benchmark's images, if they are not in PATH.")
    ] = None,
    as_json_: JsonOption = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Show a progress bar, or none.")] = True,
) -> None:
    """Check a dataset before training.

    Your own images: shows the splits, captions and concepts that were found, decodes every image and lists the first
    20 that cannot be decoded. Other files are counted by suffix. Without a validation split, 5 % of the images are
    held out for validation.

    A benchmark (coco-captions, flickr30k, visual-genome, vqa-v2, vqa-cp-v2, coco-qa, nlvr2, snli-ve, easy-vqa), in
    its published files: shows the splits that were found with their expected number of records, and the missing files
    with their download addresses. Lists the first 20 broken lines, repeated ids and missing images with file and
    line. Checks that the images exist, but does not decode them.

    The exit status is 4 if anything is broken, repeated or missing. Splits whose files are missing are not an error.

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
        raise ConfigurationError(f"{path} is a benchmark: also give its folder, `{again}`.")
    if images is not None:
        raise ConfigurationError("--images is only for benchmarks: `ashnets data check DATASET PATH --images DIR`.")
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
    """For people, the reasons are printed last, one per line."""
    if as_json_:
        show(found, json_wanted=True)
        return
    reasons = found["reasons"]
    show({key: value for key, value in found.items() if key != "reasons"}, json_wanted=False)
    for reason in reasons:
        typer.echo(f"  {reason}")
    if faults > len(reasons):
        typer.echo(f"  and {faults - len(reasons)} more")
