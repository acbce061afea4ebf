"""``ashnets data …``: build corpora for training and testing; check your own images and benchmarks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show
from ashnets.files import JsonObject

CORPUS = Path("data/pictograms")
GALLERY = Path("out/gallery")
STAMPS = Path("data/stamps")


class Extra(StrEnum):
    """Collections for training, in addition to the pictograms."""

    openclipart = "openclipart"


app = typer.Typer(
    no_args_is_help=True, help="Build corpora for training and testing; check your own images and benchmarks."
)


@app.command()
def pictograms(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="Folder to create, with parquet files and a manifest. Default: data/pictograms[-openclipart].",
        ),
    ] = None,
    extra: Annotated[
        Extra | None, typer.Option("--with", help="Also train on the drawings of this collection.", show_default=False)
    ] = None,
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

    With --with openclipart the training split also contains drawings of the Open Clip Art Library (public domain, a
    Debian package), without the words of the held-out concepts. The other splits stay the same. The title in the
    manifest is then pictograms-openclipart.

    \b
    Examples:
      ashnets data pictograms
      ashnets data pictograms --with openclipart
      ashnets data pictograms --output data/small --size 64 --cache data/npm
    """
    from ashnets.data.pictograms.building import build
    from ashnets.data.pictograms.openclipart import OPENCLIPART

    clipart = None if extra is None else OPENCLIPART
    output = output or CORPUS.with_name("-".join(filter(None, [CORPUS.name, extra])))
    manifest = build(output, cache=cache, size=size, seed=seed, progress=progress, force=force, clipart=clipart)
    if as_json_:
        show(manifest, json_wanted=True)
        return
    splits = {name: split["rows"] for name, split in manifest["splits"].items()}
    show({"corpus": output, "images": sum(splits.values()), "splits": splits}, json_wanted=False)


@app.command()
def stamps(
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder to create.")] = STAMPS,
    only: Annotated[
        Literal["photographs", "drawings"] | None, typer.Option(help="Only one kind.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the downloaded package, reused by the next build.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Longer side of the images in pixels.")] = 256,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing folder.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Show progress, or print nothing.")] = True,
    as_json_: JsonOption = False,
) -> None:
    """Write a folder of captioned images to practice with: the stamps of Tux Paint.

    The stamps are photographs, cut out, and drawings, each with a sentence; they come from a Debian package of 161 MB
    with a pinned version (GPL-2.0-or-later). Letters, numbers, coins and weapons are left out. The folder is like one
    of your own: it works with check, train, evaluate and search. A third of the images is the split test.

    \b
    Examples:
      ashnets data stamps
      ashnets data stamps --only photographs --output data/stamps-photographs
    """
    from ashnets.data.stamps import build_stamps

    found = build_stamps(output, only=only, size=size, cache=cache, force=force, progress=progress)
    show(found, json_wanted=as_json_)


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
            metavar="PATH|DATASET|RECIPE",
            help="Your own data (a corpus, parquet files or a folder of images), the name of a published benchmark, or "
            "a recipe that joins published sets.",
            autocompletion=completing.benchmarks,
        ),
    ],
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="The folder of the benchmark or of the joined sets.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of the benchmark's images, if they are not in PATH.")
    ] = None,
    as_json_: JsonOption = False,
    progress: Annotated[bool, typer.Option("--progress/--quiet", help="Show a progress bar, or none.")] = True,
) -> None:
    """Check a dataset before training.

    Your own images: shows the splits, captions and concepts that were found, decodes every image and lists the first
    20 that cannot be decoded. Other files are counted by suffix. Images with the same pixels under different captions
    are named. Without a validation split, 5 % of the images are held out for validation; of a small folder 50 images,
    but no more than a fifth.

    A benchmark (coco-captions, flickr30k, visual-genome, vqa-v2, vqa-cp-v2, coco-qa, nlvr2, snli-ve, easy-vqa), in
    its published files: shows the splits that were found with their expected number of records, and the missing files
    with their download addresses. Lists the first 20 broken lines, repeated ids and missing images with file and
    line. Checks that the images exist, but does not decode them.

    A recipe that joins published sets, such as pretrain-coco-vg: shows the images of each set, those that are in both,
    those that are left out and why, and the splits that training will see. PATH is the folder that contains the sets.

    The exit status is 4 if anything is broken, repeated or missing. Splits whose files are missing are not an error.

    \b
    Examples:
      ashnets data check my-images
      ashnets data check data/pictograms --json
      ashnets data check nlvr2 data/nlvr2
      ashnets data check vqa-v2 data/vqa --images data/coco
      ashnets data check pretrain-coco-vg data
    """
    from ashnets.errors import ConfigurationError, DataError
    from ashnets.words import command

    if (joined := _joined(dataset)) is not None:
        if path is None:
            again = command("data", "check", dataset, "PATH")
            raise ConfigurationError(f"{dataset} joins published sets: also give the folder that has them, `{again}`.")
        sound = _check_joined(joined, path, images, as_json_)
    elif path is None:
        sound = _check_own(Path(dataset), images, as_json_, progress)
    else:
        sound = _check_benchmark(dataset, path, images, as_json_, progress)
    if not sound:
        raise typer.Exit(DataError.exit_code)


def _joined(dataset: str) -> dict[str, str] | None:
    """The sets that ``dataset`` joins, if it is a recipe."""
    from ashnets.data.benchmarks import BENCHMARKS
    from ashnets.errors import ConfigurationError
    from ashnets.words import command

    file = Path(dataset)
    if dataset in BENCHMARKS or (file.exists() and file.suffix != ".yaml"):
        return None
    from ashnets.zoo.registry import recipe_path

    try:
        found = recipe_path(dataset)
    except ConfigurationError:
        return None
    from ashnets.training.reading import load_recipe

    corpus = load_recipe(found).corpus
    if not isinstance(corpus, dict):
        raise ConfigurationError(
            f"{found} joins no published sets: check its data, `{command('data', 'check', 'PATH')}`."
        )
    return corpus


def _check_joined(folders: dict[str, str], path: Path, images: Path | None, as_json_: bool) -> bool:
    from ashnets.data.checking import check_joined
    from ashnets.errors import ConfigurationError

    if images is not None:
        raise ConfigurationError("--images is only for benchmarks: `ashnets data check DATASET PATH --images DIR`.")
    found = check_joined(folders, path)
    faults = sum(found["faults"].values())
    _show(found, faults, as_json_)
    return not faults


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


def _show(found: JsonObject, faults: int, as_json_: bool) -> None:
    """For people, notes and reasons are printed last, one per line."""
    if as_json_:
        show(found, json_wanted=True)
        return
    notes, reasons = found.get("notes", []), found["reasons"]
    show({key: value for key, value in found.items() if key not in ("notes", "reasons")}, json_wanted=False)
    for note in notes:
        typer.echo(f"  note: {note}")
    for reason in reasons:
        typer.echo(f"  {reason}")
    if faults > len(reasons):
        typer.echo(f"  and {faults - len(reasons)} more")
