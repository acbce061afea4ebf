"""``ashnets finetune`` and ``ashnets evaluate``: fine-tune and evaluate models on tasks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_table, show, tell_run, warn
from ashnets.cli.training import DryRunOption, OverridesOption, RecipeArgument, ResumeOption, RunOption
from ashnets.files import Row

# columns that the printed table leaves out; --json and --output include them
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
    str, typer.Argument(help="Task: vqa, retrieval, nlvr2 or ve.", autocompletion=completing.tasks, show_default=False)
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", file_okay=False, help="Folder of the dataset's images, if they are not in its own folder."
    ),
]


def finetune(
    task: TaskArgument,
    recipe: RecipeArgument,
    data: Annotated[Path, typer.Option("--data", file_okay=False, help="Folder of the dataset that the recipe names.")],
    output: RunOption,
    images: ImagesOption = None,
    overrides: OverridesOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Fine-tune a model on a task.

    Training starts from the trained weights of the recipe's model; with --set weights=initial, from the initial
    weights of pre-training. --set weights=NAME starts from another model: a name, the model/ folder of one of your runs
    or a Hub repository.
    The output folder has the same contents as for `ashnets train`, and --resume continues an interrupted run.
    --dry-run measures the largest micro-batch of each phase and prints the memory and time that the run will need.

    \b
    Examples:
      ashnets finetune vqa finetune-easy-vqa --data site-packages/easy_vqa --output runs/easy-vqa
      ashnets finetune vqa finetune-vqa-v2 --data vqa --images coco --set weights=runs/r152/model --output runs/vqa
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
    if os.environ.get("RANK", "0") == "0":  # under torchrun, only the first process prints
        tell_run(result, dry_run=dry_run, json_wanted=as_json_)


def evaluate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="name",
            help="Names or folders of trained models.",
            autocompletion=completing.models_then_tasks,
        ),
    ],
    task: TaskArgument,
    data: Annotated[Path, typer.Argument(help="Folder of the dataset, or captioned images.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Name of the dataset in DATA, such as flickr30k. Default: the dataset that the models were fine-tuned "
            "on, or, for retrieval, 'images': your own captioned images.",
            autocompletion=completing.datasets,
        ),
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            help="Split; repeatable. Default: the usual test split, if no model was trained on it. 'all' takes all of "
            "your own images.",
        ),
    ] = None,
    images: ImagesOption = None,
    sample: Annotated[
        int,
        typer.Option(
            "--sample", min=0, metavar="N", help="Use N items of each split (N images for retrieval); 0 uses all."
        ),
    ] = 0,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates",
            min=0,
            metavar="K",
            help="Retrieval: re-rank the K best of each query by image-text matching (ITM). Default: 256 on "
            "coco-captions, 128 on flickr30k, else 0 (ITC only).",
        ),
    ] = None,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive", help="Retrieval: also score all pairs by ITM, and report the loss of R@1 by --candidates."
        ),
    ] = False,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Also evaluate the same weights without the spiking branch, with the spikes of another image, "
            "and from spikes alone.",
        ),
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Evaluate only with the membranes reset for each image; no other variants.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .csv or .json file for the table; or a folder for the table, predictions, items and a page of "
            "examples.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            metavar="N",
            help="Number of processes that load images; 0 loads them in a thread of the main process.",
        ),
    ] = 0,
    as_json_: JsonOption = False,
) -> None:
    """Evaluate models on a task.

    The metrics are the official metrics of the dataset, reported with n and the chance level. By default, membranes
    are reset for each item. Further rows show: membranes carried over from item to item, the same in random order,
    a blank-image ablation, and text-only baselines. A split that a model was trained on is evaluated only if you name
    it, and the table says so; for your own images, the table shows how many of them are training items. If the
    answers of a split are not public, --output FOLDER writes the predictions for the official server.

    Retrieval is evaluated in both directions, with R@1, R@5 and R@10. For your own captioned images and the pictogram
    corpus, the text is the name of an image or else its first caption, so a blind model is at chance. With
    --candidates, the cost of ITM is reported: pairs scored, seconds and, with --exhaustive, the loss of R@1.

    \b
    Examples:
      ashnets evaluate ashnets-tiny retrieval data/pictograms --split test-twitter-seen
      ashnets evaluate ashnets-tiny runs/ann/model retrieval data/pictograms --ablate --output out/table.csv
      ashnets evaluate ashnets-tiny retrieval data/pictograms --candidates 8 --exhaustive --sample 320
      ashnets evaluate runs/mine/model retrieval my-images --output out/mine
      ashnets evaluate ashnets-tiny retrieval my-images --split all
      ashnets evaluate runs/flickr/model retrieval flickr30k --images flickr30k-images
      ashnets evaluate runs/easy-vqa/model vqa site-packages/easy_vqa --output out/easy-vqa
      ashnets evaluate runs/vqa/model vqa vqa --images coco --split test-dev --workers 8 --output out/vqa
      ashnets evaluate runs/pairs/model nlvr2 data/pictograms --split test-twitter-new --plain --json
    """
    from ashnets.evaluation.evaluating import DataPlace, evaluate_models
    from ashnets.evaluation.options import EvaluationOptions

    options = EvaluationOptions(
        splits=tuple(dict.fromkeys(splits or [])),
        sample=sample,
        candidates=candidates,
        exhaustive=exhaustive,
        ablate=ablate,
        variants=not plain,
        workers=workers,
    )
    found = evaluate_models(names, task, DataPlace(data, dataset, images), options, output)
    result = found.to_dict()
    warn(result)
    if as_json_:
        show(result, json_wanted=True)
    else:
        typer.echo("\n".join([_table(found.as_rows()), *found.remarks()]))


def _table(rows: list[Row]) -> str:
    """All columns except those in ``ASIDE`` and those that split a metric by kinds of items."""
    return as_table(rows, [key for key in rows[0] if key not in ASIDE and not key.startswith("by ")])
