"""``ashnets finetune`` and ``ashnets evaluate-task``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show, with_units

Task = Annotated[str, typer.Argument(help="vqa, retrieval, nlvr2 or ve.")]
Pictures = Annotated[
    Path | None, typer.Option("--pictures", help="Folder of the pictures, where they lie beside the annotations.")
]


def finetune(
    task: Task,
    recipe: Annotated[str, typer.Argument(help="A bundled recipe by its name, or a recipe file.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set that the recipe names.")],
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder of the run.")],
    pictures: Pictures = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    as_json_: JsonOption = False,
) -> None:
    """Fine-tune a model on a task.

    Starts from the trained weights of the recipe's model, or, with --set weights=initial, from where pre-training
    starts; --set model=NAME takes another architecture or the model/ of a run of yours. The folder of the run is as
    that of `ashnets train`, and a run that was killed goes on with --resume.

    \b
    Examples:
      ashnets finetune vqa finetune-easy-vqa --data site-packages/easy_vqa --output runs/easy-vqa
      ashnets finetune vqa finetune-vqa-v2 --data vqa --pictures coco --set model=runs/r152/model --output runs/vqa
      ashnets finetune nlvr2 finetune-pictogram-pairs --data data/pictograms --output runs/pairs --resume
    """
    from ashnets.tasks.finetuning import finetune as run_finetuning
    from ashnets.zoo import recipe_path

    result = run_finetuning(
        task, recipe_path(recipe), data=data, output=output, pictures=pictures, overrides=overrides or [],
        resume=resume,
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of this process: one of them speaks
        show(result if as_json_ else with_units(result), json_wanted=as_json_)


def evaluate_task(
    name: Annotated[str, typer.Argument(help="Name of a model, or the folder of a fine-tuned one.")],
    task: Task,
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Its name; by default the one the model was fine-tuned on.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="By default the one that is customary.")] = None,
    pictures: Pictures = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", file_okay=False, help="Folder for predictions, CSV and a page of examples."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Take so many items, evenly spaced; 0 takes all.")] = 0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Each picture from rest alone: no carry, shuffled or constant pictures.")
    ] = False,
    as_json_: JsonOption = False,
) -> None:
    """Measure a fine-tuned model on a split of a task.

    The metrics are the official ones of the data set. Beside the result from rest stand: membranes carried from item to
    item, the same in a random order, grey in the place of every picture, and baselines that read the text alone.

    \b
    Examples:
      ashnets evaluate-task runs/easy-vqa/model vqa site-packages/easy_vqa --output out/easy-vqa
      ashnets evaluate-task runs/pairs/model nlvr2 data/pictograms --split test-twitter-new
      ashnets evaluate-task ashnets-tiny retrieval data/pictograms --dataset pictogram-retrieval --plain
    """
    from ashnets.tasks.evaluating import evaluate_named

    result = evaluate_named(
        name, task, data, dataset=dataset, split=split, pictures=pictures, output=output, limit=limit,
        variants=not plain,
    )  # fmt: skip
    if as_json_:
        show(result, json_wanted=True)
    else:
        show({key: result[key] for key in ("data", "split", "n", "variants", "baselines")}, json_wanted=False)
