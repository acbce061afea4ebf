"""``ashnets finetune`` and ``ashnets evaluate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_table, show, warn, with_units
from ashnets.cli.training import DryRunOption, OverridesOption, RecipeArgument, ResumeOption, RunOption

# columns of a result that its table on the screen leaves out; --json and --output have them
ASIDE = (
    "recipe",
    "seed",
    "data",
    "texts",
    "chance R@5",
    "pairs_seen",
    "training_seconds",
    "weights_sha256",
    "device",
    "torch",
)

TaskArgument = Annotated[
    str, typer.Argument(help="vqa, retrieval, nlvr2 or ve.", autocompletion=completing.tasks, show_default=False)
]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", file_okay=False, help="Where the data set's images lie, if not in its folder."),
]


def finetune(
    task: TaskArgument,
    recipe: RecipeArgument,
    data: Annotated[
        Path, typer.Option("--data", file_okay=False, help="Folder of the data set that the recipe names.")
    ],
    output: RunOption,
    images: ImagesOption = None,
    overrides: OverridesOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Fine-tune a model on a task.

    Starts from the trained weights of the recipe's model, or, with --set weights=initial, from where pre-training
    starts; --set model=NAME takes another architecture or the model/ of a run of yours. The folder of the run is as
    that of `ashnets train`, and a run that was killed goes on with --resume. --dry-run measures the largest pass of
    each phase and prints what the run will need.

    \b
    Examples:
      ashnets finetune vqa finetune-easy-vqa --data site-packages/easy_vqa --output runs/easy-vqa
      ashnets finetune vqa finetune-vqa-v2 --data vqa --images coco --set model=runs/r152/model --output runs/vqa
      ashnets finetune nlvr2 finetune-pictogram-pairs --data data/pictograms --output runs/pairs --dry-run
    """
    import ashnets

    result = ashnets.finetune(
        task,
        recipe,
        data=data,
        output=output,
        images=images,
        overrides=overrides or [],
        resume=resume,
        dry_run=dry_run,
    )
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of this process: one of them speaks
        show(result if as_json_ else with_units(result), json_wanted=as_json_)


def evaluate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="name",
            help="Names of models, or folders of trained ones.",
            autocompletion=completing.models_then_tasks,
        ),
    ],
    task: TaskArgument,
    data: Annotated[Path, typer.Argument(help="Folder of the data set, or any images with captions.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="What DATA is, such as flickr30k. By default what the models were fine-tuned on; for retrieval else "
            "'images': a corpus, parquet, or a folder of your own, taken by their names.",
            autocompletion=completing.datasets,
        ),
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            help="A split; repeatable. By default the one that is customary, if no model was trained on it.",
        ),
    ] = None,
    images: ImagesOption = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample", min=0, metavar="N", help="Take N items of a split, for retrieval N images; 0 takes all."
        ),
    ] = 0,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates",
            min=0,
            metavar="K",
            help="Retrieval: let the matching head (ITM) order the K best of each query anew. By default 256 on "
            "coco-captions, 128 on flickr30k, else 0: ITC alone.",
        ),
    ] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Retrieval: ITM on all pairs too, and the R@1 lost without it.")
    ] = False,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also measure the same weights with the spiking branch switched off.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Each image from a reset state alone, as 'images' always are: no variants.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .csv or .json file for the table; or a folder, which has of a data set also predictions, items "
            "and a page of examples, and of 'images' the table alone.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=0, metavar="N", help="Processes that read a data set's images; 0 reads between batches."
        ),
    ] = 0,
    as_json_: JsonOption = False,
) -> None:
    """Measure models on a task.

    The metrics are the official ones of the data set, with n and chance. Beside the result from a reset state stand: membranes
    carried from item to item, the same in a random order, gray in the place of every image, and baselines that read
    the text alone. A split that a model was trained on is measured when it is asked for, and the table says so; of your
    own images it says how many the model learned from. Where the makers keep the answers, --output FOLDER receives the
    predictions for their server.

    Retrieval is measured both ways, R@1, R@5 and R@10. Of captioned images of your own, or the pictogram corpus, a
    text is the bare name of an image, or its first caption, and a model that does not look is at chance. Where ITM
    ranks, its cost is shown: pairs scored, seconds and, with --exhaustive, the R@1 lost.

    \b
    Examples:
      ashnets evaluate ashnets-tiny retrieval data/pictograms --split test-twitter-seen
      ashnets evaluate ashnets-tiny runs/ann/model retrieval data/pictograms --ablate --output out/table.csv
      ashnets evaluate ashnets-tiny retrieval data/pictograms --candidates 8 --exhaustive --sample 320
      ashnets evaluate runs/flickr/model retrieval flickr30k --images flickr30k-images
      ashnets evaluate runs/easy-vqa/model vqa site-packages/easy_vqa --output out/easy-vqa
      ashnets evaluate runs/vqa/model vqa vqa --images coco --split test-dev --workers 8 --output out/vqa
      ashnets evaluate runs/pairs/model nlvr2 data/pictograms --split test-twitter-new --plain --json
    """
    import ashnets
    from ashnets.tasks.measuring import as_rows, remarks

    result = ashnets.evaluate(
        names,
        task,
        data,
        dataset=dataset,
        splits=splits or [],
        images=images,
        output=output,
        sample=sample,
        candidates=candidates,
        exhaustive=exhaustive,
        ablate=ablate,
        variants=not plain,
        workers=workers,
    )
    warn(result)
    if as_json_:
        show(result, json_wanted=True)
    else:
        typer.echo("\n".join([_table(as_rows(result)), *remarks(result)]))


def _table(rows: list[dict[str, Any]]) -> str:
    """All columns but those that are the same in every row or split a metric by kinds of items."""
    return as_table(rows, [key for key in rows[0] if key not in ASIDE and not key.startswith("by ")])
