"""``ashnets index``, ``ashnets search``, ``ashnets ask``: models at work on your own images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_json, as_table, show

SHOWN = 20  # of what cannot be read that are named; --json names all


def index(
    images: Annotated[Path, typer.Argument(help="A folder of images; its sub-folders belong to it.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the index, or the path of a folder for it. By default the folder's own.",
            autocompletion=completing.indexes,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Name or folder of a model.", autocompletion=completing.models)
    ] = "ashnets-tiny",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Forget what is in the index and embed all anew.")] = False,
    as_json_: JsonOption = False,
) -> None:
    """Index a folder of images for search.

    Only new and changed images are embedded, so run it again whenever you like. What was finished is kept when it is
    interrupted or killed. Images that cannot be read are named and left out. Several processes share the work under
    torchrun; they must see the same files.

    \b
    Examples:
      ashnets index my-images --name holidays
      ashnets index my-images --name holidays --model runs/mine/model --rebuild
      torchrun --nproc_per_node 8 -m ashnets index my-images --name holidays
    """
    import ashnets
    from ashnets.data.folders import printable

    result = ashnets.index(images, name, model, rebuild=rebuild)
    if os.environ.get("RANK", "0") != "0":  # torchrun's number of this process: one of them speaks
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
        typer.Argument(
            help="A folder of images, or the name or folder of an index.", autocompletion=completing.indexes
        ),
    ],
    query: Annotated[str, typer.Argument(help="What to look for, in words.")],
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="How many images to show.")] = 10,
    rerank: Annotated[
        int,
        typer.Option("--candidates", min=0, metavar="K", help="Let ITC and matching (ITM) order the K best anew."),
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Name or folder of a model. By default the one of the index.",
            autocompletion=completing.models,
        ),
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Search images by text.

    A folder of images is indexed first, which takes time once; an index is searched as it is. The score is the
    cosine of text and image, matching the probability that they belong together. --candidates reads the K best again:
    it takes longer, and may rank better or worse.

    \b
    Examples:
      ashnets search my-images "a red car"
      ashnets search holidays "a boat on a lake" --top 3 --candidates 32
      ashnets search holidays "a dog" --json
    """
    import ashnets
    from ashnets.data.folders import printable

    found = ashnets.ImageSearch(images, model)
    hits = found(query, top, rerank)
    if as_json_:
        about = {"query": query, "images": len(found), "unreadable": len(found.unreadable)}
        typer.echo(as_json({**about, "hits": hits}))
        return
    _name_unreadable(found.unreadable)
    rows = [{**hit, "rank": place, "image": printable(hit["path"])} for place, hit in enumerate(hits, start=1)]
    typer.echo(as_table(rows, ["rank", "score", *(["matching"] if rerank else []), "image"]))


def ask(
    image: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Name or folder of a model that was fine-tuned for questions (vqa).",
            autocompletion=completing.models,
        ),
    ] = "ashnets-tiny",
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="How many answers to show.")] = 3,
    as_json_: JsonOption = False,
) -> None:
    """Ask a question about an image.

    The model must have been fine-tuned for the task vqa, and chooses among the answers that it was trained with; the
    bundled one was not, and says so. A score says how right the model thinks an answer to be. For a folder, every
    image is asked; those that cannot be read are named and left out.

    \b
    Examples:
      ashnets ask street.jpg "how many cars are there?" --model runs/vqa/model
      ashnets ask my-images "what color is it?" --model runs/vqa/model --top 1 --json
    """
    import ashnets
    from ashnets.data.folders import printable

    questions = ashnets.ImageQuestions(model)
    if image.is_dir():
        found = list(questions.over(image, question, top))
    else:
        found = [{"image": image.name, "path": str(image), "answers": questions(image, question, top)}]
    unreadable = {one["path"]: one["unreadable"] for one in found if "unreadable" in one}
    answered = [one for one in found if "answers" in one]
    if as_json_:
        typer.echo(as_json({"question": question, "answered": answered, "unreadable": unreadable}))
        return
    _name_unreadable(unreadable)
    rows = [{"image": printable(one["path"]), **answer} for one in answered for answer in one["answers"]]
    typer.echo(as_table(rows, ["image", "answer", "score"]))


def _name_unreadable(unreadable: Mapping[str, Any]) -> None:
    """Name images and folders that were left out, on stderr, with their number."""
    if not unreadable:
        return
    reasons = list(unreadable.values())
    for reason in reasons[:SHOWN]:
        typer.echo(f"left out: {reason}", err=True)
    more = f"; the first {SHOWN} are named, --json names all" if len(reasons) > SHOWN else ""
    typer.echo(f"images or folders left out: {len(reasons)}{more}", err=True)
