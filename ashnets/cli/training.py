"""``ashnets train``: train a model by a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import tell_run

CorpusOption = Annotated[
    Path | None,
    typer.Option(
        "--corpus",
        help="Captioned images: a corpus, parquet files or a folder of images. Default: data/NAME, with the "
        "corpus of the recipe as the name. For a recipe that joins published sets, the folder that contains theirs. "
        "Default: data.",
        show_default=False,
    ),
]
RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a bundled recipe, or a recipe file.", autocompletion=completing.recipes)
]
RunOption = Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Output folder of the run.")]
OverridesOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the recipe; repeatable.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in the output folder.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print parameters, FLOPs, memory and time; write nothing.")
]


def train(
    recipe: RecipeArgument,
    output: RunOption,
    corpus: CorpusOption = None,
    overrides: OverridesOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Train a model by a recipe.

    The output folder contains checkpoints, logs (JSON lines and TensorBoard), plots and, at the end, the model with
    its processor, recipe and training record. --resume continues an interrupted run and gives the same weights,
    bit for bit on a CPU. For several devices, start the command with torchrun; the recipe's batch_size is the global
    batch size, divided among the devices. --dry-run measures one step of each phase and says what the run will do, the
    memory and time that it needs, and which recipe fits your images.

    A run ends with the model's results on the held-out images, beside chance and a blank image, and with a page of
    examples. --set weights=NAME starts from trained weights: a name, a folder or a Hub repository.

    \b
    Examples:
      ashnets train tiny-pictograms --output runs/tiny
      ashnets train tiny-pictograms --output runs/tiny --resume
      ashnets train own-pairs --corpus my-images --output runs/mine --dry-run
      ashnets train own-pairs --corpus my-images --output runs/more --set weights=runs/mine/model
      torchrun --nproc_per_node 8 -m ashnets train pretrain-coco-vg --corpus data --output runs/r152
    """
    import ashnets

    result = ashnets.train(
        recipe, corpus=corpus, output=output, overrides=overrides or [], resume=resume, dry_run=dry_run
    )
    if os.environ.get("RANK", "0") == "0":  # under torchrun, only the first process prints
        tell_run(result, dry_run=dry_run, json_wanted=as_json_)
