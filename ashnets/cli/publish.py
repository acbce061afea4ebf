"""``ashnets publish`` and ``ashnets verify``: models on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.printing import show, warn

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def publish(
    source: Annotated[
        str,
        typer.Argument(help="Folder of a run or of a model, or a name with weights.", autocompletion=completing.models),
    ],
    repository: Annotated[str, typer.Option("--repo", help="Where to: USER/NAME or ORGANIZATION/NAME.")],
    tag: Annotated[str | None, typer.Option("--tag", help="A name for this state; it never moves.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Only you see the repository.")] = False,
    license: Annotated[
        str | None,
        typer.Option("--license", help="Of the weights: apache-2.0 or another of the Hub's names, or other:NAME."),
    ] = None,
    training_data: Annotated[
        str | None, typer.Option("--training-data", help="A sentence for the card, with the data's licenses.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="The Hub's id of the corpus of training and results, if it has one.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", help="The Hub's id of a benchmark of the results: .eval_results is for these."),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", dir_okay=False, help="A .csv of `ashnets evaluate`, for the card; repeatable."),
    ] = None,
    energy: Annotated[
        Path | None, typer.Option("--energy", dir_okay=False, help="The energy.json of `ashnets energy`, for the card.")
    ] = None,
    exports: Annotated[
        Path | None, typer.Option("--exports", file_okay=False, help="A folder of exported graphs to send along.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, write the card to out/publish/REPO, send nothing.")
    ] = False,
    as_json_: JsonOption = False,
) -> None:
    """Publish a trained model on the Hugging Face Hub.

    First everything is checked: strict loading, equal outputs after a reload, no pickles, no state of the training, a
    license. Then weights, configuration, tokenizer, recipe, results and a card made from them go up in one commit, and
    the repository is loaded back and compared. After an interruption run the same command again. A token comes from
    `hf auth login` or HF_TOKEN. --dry-run sends nothing and writes the card to out/publish/REPO/README.md.

    Results, energy and exports must be of these very weights: the files carry the SHA-256 of the weights that they are
    about, and those of other weights are refused.

    Results always stand in the card, as tables and as model-index. The Hub's newer form, .eval_results, takes results
    on the Hub's own benchmarks alone (data sets with an eval.yaml) and is written with --benchmark. CO2 is told where
    the folder of the run holds codecarbon's emissions.csv: mkdir -p RUN, then CODECARBON_OUTPUT_DIR=RUN codecarbon
    monitor -- ashnets train RECIPE --output RUN.

    \b
    Examples:
      ashnets publish runs/mine --repo me/ashnets-birds --license cc-by-4.0 --dry-run
      ashnets publish runs/mine --repo me/ashnets-birds --license cc-by-4.0 --tag v1 --private
      ashnets publish runs/mine --repo me/ashnets-birds --license mit --results out/table.csv --exports out/graphs
      ashnets publish runs/vqa --repo me/ashnets-vqa --license mit --results out/vqa.csv --benchmark org/some-benchmark
      ashnets publish ashnets-tiny.pictograms --repo me/ashnets-tiny.pictograms --json
    """
    import ashnets

    result = ashnets.publish(
        source,
        repository,
        tag=tag,
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
            help="A name, a folder of a model or run, or a Hub repository, with @REVISION if you like.",
            autocompletion=completing.models,
        ),
    ],
    as_json_: JsonOption = False,
) -> None:
    """Check that a model is what it should be.

    Every file is compared with its SHA-256 where one is known: pinned by the registry, or announced by the Hub. Then
    the model is loaded strictly, its outputs are compared after a reload, and its processor is loaded. Anything wrong
    is an error.

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
