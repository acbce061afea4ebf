"""``ashnets train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.data import CORPUS
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show, with_units

CorpusOption = Annotated[
    Path, typer.Option("--corpus", help="Images with captions: a corpus, parquet, or a folder of your own.")
]
RecipeArgument = Annotated[
    str, typer.Argument(help="A bundled recipe by its name, or a recipe file.", autocompletion=completing.recipes)
]
RunOption = Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder of the run.")]
OverridesOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeatable.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print parameters, FLOPs, memory and time, and write nothing.")
]


def train(
    recipe: RecipeArgument,
    output: RunOption,
    corpus: CorpusOption = CORPUS,
    overrides: OverridesOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Train a model by a recipe.

    The folder of the run receives checkpoints, logs (JSON lines and TensorBoard), plots, and in the end the model with
    its processor, recipe and record. A run that was killed goes on with --resume and ends with the same weights, on
    a CPU to the bit. On several devices, say it through torchrun; the batch of the recipe is shared out. --dry-run
    measures a step of each phase and prints what the run will need.

    \b
    Examples:
      ashnets train tiny-pictograms --output runs/tiny
      ashnets train tiny-pictograms --output runs/tiny --resume
      ashnets train own-pairs --corpus my-images --output runs/mine --set seed=1 --dry-run
      torchrun --nproc_per_node 8 -m ashnets train pretrain-coco-vg --corpus coco-vg --output runs/r152
    """
    import ashnets

    result = ashnets.train(
        recipe, corpus=corpus, output=output, overrides=overrides or [], resume=resume, dry_run=dry_run
    )
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of this process: one of them speaks
        show(result if as_json_ else with_units(result), json_wanted=as_json_)
