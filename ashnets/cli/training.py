"""``ashnets train`` and ``ashnets evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli.data import CORPUS
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show

CorpusOption = Annotated[
    Path, typer.Option("--corpus", file_okay=False, help="A corpus, as `ashnets data` builds them.")
]


def train(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe by its name, or a recipe file.")],
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder of the run.")],
    corpus: CorpusOption = CORPUS,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan only.")] = False,
) -> None:
    """Train a model by a recipe.

    The folder of the run receives the model, its processor, the resolved recipe, the log and the results.

    \b
    Examples:
      ashnets train tiny-pictograms --output runs/tiny
      ashnets train tiny-pictograms --output runs/tiny --resume
      ashnets train my-recipe.yaml --corpus data/small --output runs/mine --set seed=1 --dry-run
    """
    from ashnets.training.run import train as run_training
    from ashnets.zoo import recipe_path

    result = run_training(
        recipe_path(recipe), corpus=corpus, output=output, overrides=overrides or [], resume=resume, dry_run=dry_run
    )
    show(result, json_wanted=False)


def evaluate(
    name: Annotated[str, typer.Argument(help="A model's name, or the folder of a trained one.")],
    splits: Annotated[list[str], typer.Option("--split", help="A split of the corpus; repeatable.")],
    corpus: CorpusOption = CORPUS,
    rerank: Annotated[
        int, typer.Option(min=0, help="Candidates of each query that the matching head (ITM) scores again.")
    ] = 0,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Measure the same weights with the spiking branch switched off as well.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Write the results to this JSON file too.")
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Measure retrieval on a corpus.

    Text to image and image to text: R@1, R@5 and R@10, with n and chance. A text is the bare name of a concept. A
    model that does not look at the pictures is at chance: that is the blind baseline of retrieval.

    \b
    Examples:
      ashnets evaluate ashnets-tiny --split test-twitter-seen
      ashnets evaluate runs/tiny --corpus data/small --split test-twitter-seen --output out/tiny.json
    """
    from ashnets.files import write_json
    from ashnets.training.evaluate import evaluate_retrieval

    result = evaluate_retrieval(name, corpus, splits, rerank, ablate)
    if output is not None:
        write_json(output, result)
    show(result, json_wanted=as_json_)
