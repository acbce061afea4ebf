"""``ashnets experiment``: a table or a figure of the paper, or an experiment of our own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_table, show, with_units
from ashnets.files import JsonObject

PLANNED = ("row", "seed", "run", "status", "seconds", "bytes")


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the experiment, such as table-11 or figure-5, or a file of that form.",
            autocompletion=completing.experiments,
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            "--scale", help="lab: pictograms, minutes a row; paper: the paper's sizes and data; or a file of that form."
        ),
    ] = "lab",
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, separated by commas.")] = "0,1,2",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ROW", help="Run only this row; repeatable.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            file_okay=False,
            help="Folder of the data. Default: data/pictograms at scale lab, data at scale paper.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder of the runs and of the results.")
    ] = Path("runs/experiments"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print which runs are left, with their time and memory; write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue interrupted runs.")] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, metavar="N", help="Run N rows at once, each with one thread.")
    ] = 1,
    as_json_: JsonOption = False,
) -> None:
    """Run an experiment: a table or a figure of the paper, or one of our own.

    Each row is pre-trained as its own variant, fine-tuned on each task and evaluated, with each seed. The runs are
    ordinary runs of `ashnets train` and `ashnets finetune` in OUTPUT/runs, which all experiments share: finished runs
    are not repeated, and --resume continues interrupted ones. OUTPUT/NAME receives results.csv, table.md (mean ±
    standard deviation over seeds), a plot, and page.md with the paper's numbers beside. The experiments are table-2 to
    table-14, figure-3 to figure-5, time-axis, collector-scale, tuning-groups and distillation. For several devices,
    start the command with torchrun.

    \b
    Examples:
      ashnets experiment table-11 --dry-run
      ashnets experiment table-11 --data data/pictograms --output runs/experiments --jobs 2
      ashnets experiment table-9 --only 16 --only 64 --seeds 0 --resume
      ashnets experiment figure-5 --scale paper --data data --output runs/paper
    """
    import ashnets

    result = ashnets.experiment(
        name,
        scale=scale,
        seeds=_numbers(seeds),
        only=only or [],
        data=data,
        output=output,
        dry_run=dry_run,
        resume=resume,
        jobs=jobs,
    )
    if os.environ.get("RANK", "0") != "0":  # under torchrun, only the first process prints
        return
    if as_json_:
        show(result, json_wanted=True)
    else:
        typer.echo(_planned(result) if dry_run else _written(result))


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give numbers separated by commas, such as 0,1,2") from None


def _planned(result: JsonObject) -> str:
    rows = [with_units({key: row[key] for key in PLANNED}) for row in result["rows"]]
    total = with_units({"seconds": result["seconds"]})["seconds"]
    return f"{as_table(rows, PLANNED)}\nleft to run: {total}"


def _written(result: JsonObject) -> str:
    table = Path(result["page"]).with_name("table.md").read_text(encoding="utf-8")
    return f"{table}\nresults: {result['results']}\npage: {result['page']}"
