"""``ashnets index``, ``ashnets search``, ``ashnets ask``: search and question your own images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_json, as_table, show

SHOWN = 20  # unreadable images to list; --json lists all


def index(
    images: Annotated[Path, typer.Argument(help="Folder of images, including its subfolders.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the index, or a path for its folder. Default: a name from the folder of images.",
            autocompletion=completing.indexes,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Model name or folder.", autocompletion=completing.models)
    ] = "ashnets-tiny",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Discard the index and embed all images again.")] = False,
    as_json_: JsonOption = False,
) -> None:
    """Index a folder of images for search.

    Only new and changed images are embedded, so you can run the command again at any time. If it is interrupted,
    finished work is kept. Unreadable images are listed and left out. With torchrun, several processes share the work;
    they must see the same files.

    \b
    Examples:
      ashnets index my-images --name holidays
      ashnets index my-images --name holidays --model runs/mine/model --rebuild
      torchrun --nproc_per_node 8 -m ashnets index my-images --name holidays
    """
    import ashnets
    from ashnets.data.folders import printable

    result = ashnets.index(images, name, model, rebuild=rebuild)
    if os.environ.get("RANK", "0") != "0":  # under torchrun, only the first process prints
        return
    if as_json_:
        show(result, json_wanted=True)
        return
    _name_unreadable(result["unreadable"])
    said = {key: printable(one) if isinstance(one, str) else one for key, one in result.items()}
    show({**said, "unreadable": len(result["unreadable"])}, json_wanted=False)


def search(
    images: Annotated[
        str,
        typer.Argument(help="Folder of images, or the name or folder of an index.", autocompletion=completing.indexes),
    ],
    query: Annotated[str, typer.Argument(help="Text to search for.")],
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="Number of images to show.")] = 10,
    rerank: Annotated[
        int,
        typer.Option(
            "--candidates",
            min=0,
            metavar="K",
            help="Re-rank the K best images by ITC and image-text matching (ITM) together.",
        ),
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model name or folder. Default: the model of the index.",
            autocompletion=completing.models,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", dir_okay=False, metavar="FILE.html", help="Also write a page with the images found."),
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Search images by text.

    A folder of images is indexed first; later searches reuse the index. An index is searched without an update.
    The score is the cosine similarity of text and image; matching is the ITM probability that they match.
    --candidates K reads the K best images again, which takes longer and can give better or worse results. Words that
    the model does not know are named.

    \b
    Examples:
      ashnets search my-images "a red car"
      ashnets search holidays "a boat on a lake" --top 3 --candidates 32
      ashnets search my-images "a red car" --model runs/mine/model --page red-car.html
      ashnets search holidays "a dog" --json
    """
    import ashnets
    from ashnets.data.folders import printable
    from ashnets.files import require_writable
    from ashnets.image_search.searching import require_query
    from ashnets.image_search.sheet import words_unknown

    require_query(query)
    if page is not None:
        require_writable(page)
    found = ashnets.ImageSearch(images, model)
    hits = found(query, top, rerank)
    if page is not None:
        found.write_page(page, query, hits)
    unknown = found.unknown_words(query)
    if as_json_:
        about = {"query": query, "unknown words": unknown, "images": len(found), "unreadable": len(found.unreadable)}
        typer.echo(as_json({**about, "hits": hits}))
        return
    _name_unreadable(found.unreadable)
    if unknown:
        typer.echo(f"note: {words_unknown(unknown)}", err=True)
    rows = [{**hit, "rank": place, "image": printable(hit["path"])} for place, hit in enumerate(hits, start=1)]
    typer.echo(as_table(rows, ["rank", "score", *(["matching"] if rerank else []), "image"]))


def ask(
    image: Annotated[Path, typer.Argument(help="Image file, or folder of images.")],
    question: Annotated[str, typer.Argument(help="Question about the image.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Name or folder of a model fine-tuned for the task vqa.",
            autocompletion=completing.models,
        ),
    ] = "ashnets-tiny",
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="Number of answers to show.")] = 3,
    as_json_: JsonOption = False,
) -> None:
    """Ask a question about an image.

    The model must be fine-tuned for the task vqa; the bundled model is not, so give --model. The model chooses among
    its training answers. The score in [0, 1] is the model's confidence that an answer is right. For a folder, the
    question is asked for every image; unreadable images are listed and left out.

    \b
    Examples:
      ashnets ask street.jpg "how many cars are there?" --model runs/vqa/model
      ashnets ask my-images "what color is it?" --model runs/vqa/model --top 1 --json
    """
    import ashnets
    from ashnets.data.folders import printable
    from ashnets.errors import DataError

    questions = ashnets.ImageQuestions(model)
    if image.is_dir():
        found = list(questions.over(image, question, top))
    else:
        found = [{"image": image.name, "path": str(image), "answers": questions(image, question, top)}]
    unreadable = {one["path"]: one["unreadable"] for one in found if "unreadable" in one}
    answered = [one for one in found if "answers" in one]
    if not answered:
        why = next(iter(unreadable.values()))
        raise DataError(f"none of the images of {printable(image)} can be read, for example: {why}")
    if as_json_:
        typer.echo(as_json({"question": question, "answered": answered, "unreadable": unreadable}))
        return
    _name_unreadable(unreadable)
    rows = [{"image": printable(one["path"]), **answer} for one in answered for answer in one["answers"]]
    typer.echo(as_table(rows, ["image", "answer", "score"]))


def _name_unreadable(unreadable: Mapping[str, object]) -> None:
    """Print the images and folders that were left out, and their number, on stderr."""
    if not unreadable:
        return
    reasons = list(unreadable.values())
    for reason in reasons[:SHOWN]:
        typer.echo(f"left out: {reason}", err=True)
    more = f"; the first {SHOWN} are listed, --json lists all" if len(reasons) > SHOWN else ""
    typer.echo(f"images or folders left out: {len(reasons)}{more}", err=True)
