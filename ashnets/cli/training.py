"""``ashnets train`` and ``ashnets evaluate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli.data import CORPUS
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_table, show, with_units

# what `evaluate` prints of a row; the rest is in --json and --output
KEYS = (
    "model", "branch", "split", "direction", "ranking", "pictures", "R@1", "R@5", "R@10", "chance R@1", "chance R@10"
)  # fmt: skip
COSTS = ("pairs scored", "pairs", "seconds", "R@1 lost")

CorpusOption = Annotated[
    Path, typer.Option("--corpus", help="Pictures with captions: a corpus, parquet, or a folder of your own.")
]


def train(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe by its name, or a recipe file.")],
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder of the run.")],
    corpus: CorpusOption = CORPUS,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, FLOPs, memory and time, and write nothing.")
    ] = False,
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
      ashnets train own-pairs --corpus my-pictures --output runs/mine --set seed=1 --dry-run
      torchrun --nproc_per_node 8 -m ashnets train pretrain-coco-vg --corpus coco-vg --output runs/r152
    """
    from ashnets.training.run import train as run_training
    from ashnets.zoo import recipe_path

    result = run_training(
        recipe_path(recipe), corpus=corpus, output=output, overrides=overrides or [], resume=resume, dry_run=dry_run
    )
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of this process: one of them speaks
        show(result if as_json_ else with_units(result), json_wanted=as_json_)


def evaluate(
    names: Annotated[list[str], typer.Argument(help="Names of models, or folders of trained ones.")],
    splits: Annotated[list[str], typer.Option("--split", help="A split of the corpus; repeatable.")],
    corpus: CorpusOption = CORPUS,
    rerank: Annotated[
        str,
        typer.Option(
            metavar="K",
            help="Also rank with the matching head (ITM) on the K best of each query; coco-captions and flickr30k "
            "stand for the K of their tests, 256 and 128.",
        ),
    ] = "0",
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Also rank with ITM on all pairs, and show what --rerank loses by it.")
    ] = False,
    sample: Annotated[int, typer.Option(min=0, help="Take that many pictures of a split, drawn at random.")] = 0,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also measure the same weights with the spiking branch switched off.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Write the results there too: .json, or .csv as a table."),
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Measure retrieval on a corpus.

    Text to image and image to text: R@1, R@5 and R@10, with n and chance. A text is the bare name of a concept. A
    model that does not look at the pictures is at chance: that is the blind baseline of retrieval.

    \b
    Examples:
      ashnets evaluate ashnets-tiny --split test-twitter-seen
      ashnets evaluate ashnets-tiny --split test-twitter-seen --split test-twitter-new --ablate --rerank 16
      ashnets evaluate ashnets-tiny --split test-twitter-seen --rerank 8 --exhaustive --sample 320
      ashnets evaluate ashnets-tiny runs/ann/model --split test-twitter-seen --output out/table.csv
    """
    from ashnets.errors import ConfigurationError
    from ashnets.files import write_csv, write_json
    from ashnets.training.evaluate import as_rows, evaluate_retrieval

    if output is not None and output.suffix not in (".json", ".csv"):
        raise ConfigurationError(f"--output {output}: the name must end in .json or .csv")
    result = evaluate_retrieval(names, corpus, splits, rerank, ablate, exhaustive=exhaustive, sample=sample)
    if output is not None and output.suffix == ".csv":
        write_csv(output, as_rows(result))
    elif output is not None:
        write_json(output, result)
    if as_json_:
        show(result, json_wanted=True)
    else:
        rows = as_rows(result)
        typer.echo(as_table(rows, [*KEYS, *(key for key in COSTS if key in rows[0])]))
