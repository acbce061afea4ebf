"""``ashnets publish`` and ``ashnets verify``: publish models on the Hugging Face Hub and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show, warn


def publish(
    source: Annotated[
        str,
        typer.Argument(help="Folder of a run or a model, or a name with weights.", autocompletion=completing.models),
    ],
    repository: Annotated[str, typer.Option("--repo", help="Target repository: USER/NAME or ORGANIZATION/NAME.")],
    tag: Annotated[
        str | None, typer.Option("--tag", help="Git tag for this version; an existing tag is never moved.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", help="Also publish a Space, USER/NAME, that runs `ashnets app` on the model."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    license: Annotated[
        str | None,
        typer.Option(
            "--license", help="License of the weights: a license name of the Hub, such as apache-2.0, or other:NAME."
        ),
    ] = None,
    training_data: Annotated[
        str | None,
        typer.Option("--training-data", help="A sentence for the model card about the training data and its licenses."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Hub id of the dataset for training and results, if it has one.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", help="Hub id of the benchmark of the results; writes .eval_results."),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results", dir_okay=False, help="A .csv file from `ashnets evaluate`, for the model card; repeatable."
        ),
    ] = None,
    energy: Annotated[
        Path | None,
        typer.Option(
            "--energy", dir_okay=False, help="The energy.json file from `ashnets energy`, for the model card."
        ),
    ] = None,
    exports: Annotated[
        Path | None, typer.Option("--exports", file_okay=False, help="Folder of exported graphs to upload.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Run all checks and write the model card to out/publish/REPO, but upload nothing."
        ),
    ] = False,
    as_json_: JsonOption = False,
) -> None:
    """Publish a trained model on the Hugging Face Hub.

    First, everything is checked: strict loading, equal outputs after a reload, no pickles, no training state, a
    license. Then weights, configuration, tokenizer, recipe, results and a model card are uploaded in one commit, and
    the repository is downloaded and compared. After an interruption, run the same command again. The token comes from
    `hf auth login` or HF_TOKEN. --dry-run uploads nothing and writes the card to out/publish/REPO/README.md.

    Results, energy and exports must belong to the published weights. These files contain the SHA-256 of their
    weights; files for other weights are rejected.

    Results are always written to the card, as tables and as model-index. The Hub's newer format, .eval_results, is
    written with --benchmark; the Hub accepts it only for its own benchmarks (datasets with an eval.yaml). The card
    reports CO2 emissions if the folder of the run contains emissions.csv of codecarbon: mkdir -p RUN, then
    CODECARBON_OUTPUT_DIR=RUN codecarbon monitor -- ashnets train RECIPE --output RUN.

    With --space, a Space is written and uploaded too: the app, this package, and the name of the published commit. On
    the Hub it runs for everybody who may see it. A Space of a private model needs the secret HF_TOKEN.

    \b
    Examples:
      ashnets publish runs/mine --repo me/ashnets-birds --license cc-by-4.0 --dry-run
      ashnets publish runs/mine --repo me/ashnets-birds --license cc-by-4.0 --tag v1 --private
      ashnets publish runs/mine --repo me/ashnets-birds --license mit --results out/table.csv --exports out/graphs
      ashnets publish runs/vqa --repo me/ashnets-vqa --license mit --results out/vqa.csv --benchmark org/some-benchmark
      ashnets publish ashnets-tiny.pictograms --repo me/ashnets-tiny.pictograms --space me/ashnets-tiny --json
    """
    import ashnets

    result = ashnets.publish(
        source,
        repository,
        tag=tag,
        space=space,
        private=private,
        dry_run=dry_run,
        license=license,
        training_data=training_data,
        dataset=dataset,
        benchmark=benchmark,
        results=results or [],
        energy=energy,
        exports=exports,
        report=lambda line: typer.echo(line, err=True),
    )
    _show(result, as_json_)


def verify(
    name: Annotated[
        str,
        typer.Argument(
            help="A name, the folder of a model or run, or a Hub repository with optional @REVISION.",
            autocompletion=completing.models,
        ),
    ],
    as_json_: JsonOption = False,
) -> None:
    """Verify the files and weights of a model.

    Every file is compared with its SHA-256, if one is known from the registry or the Hub. Then the model is loaded
    strictly, its outputs are compared after a reload, and its processor is loaded. If a check fails, the exit status
    is 5.

    \b
    Examples:
      ashnets verify ashnets-tiny
      ashnets verify runs/mine/model --json
      ashnets verify me/ashnets-birds@v1
    """
    import ashnets

    result = ashnets.verify(name)
    _show(result, as_json_)
    raise typer.Exit(0 if result["passed"] else 5)


def _show(result: dict, json_wanted: bool) -> None:
    warn(result)
    if not json_wanted:
        checks = {one["name"]: {"passed" if one["passed"] else "FAILED": one["found"]} for one in result["checks"]}
        result = {**result, "checks": checks}
    show(result, json_wanted=json_wanted)
