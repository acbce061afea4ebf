"""``ashnets quantize``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_table, show, warn, with_units
from ashnets.cli.tasks import ImagesOption
from ashnets.cli.training import DryRunOption, OverridesOption

RECALLS = ("weights", "direction", "split", "images", "R@1", "R@10", "chance R@1", "chance R@10")
SPIKES = ("weights", "layer", "rate_float", "rate", "changed", "changed_per_spike")


def quantize(
    name: Annotated[
        str,
        typer.Argument(
            help="A float checkpoint: a model's name, a folder, or a Hub repository.", autocompletion=completing.models
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the quantized model.")],
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", help="For a pre-trained model: images with captions. By default data/pictograms."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", file_okay=False, help="For a fine-tuned model: folder of its task's data set."),
    ] = None,
    images: ImagesOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe to fine-tune by, a bundled name or a file; the checkpoint's own by default.",
            autocompletion=completing.recipes,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Steps of fine-tuning; 0 only rounds.")] = 200,
    calibration: Annotated[
        int,
        typer.Option(min=0, help="Training images or items to gather tdBN's statistics from; 0 keeps what there is."),
    ] = 1024,
    compared: Annotated[int, typer.Option(min=1, help="Images on which spikes are compared.")] = 256,
    split: Annotated[
        str | None, typer.Option(help="Split to measure on; the recipe's validation split by default.")
    ] = None,
    overrides: OverridesOption = None,
    dry_run: DryRunOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Make a model's spiking branch integer, as a neuromorphic chip computes it.

    Calibrates tdBN, rounds weights to 8 bits and membranes to 24, and fine-tunes through the rounding. Prints the
    metric without spikes, before, and after each of the three: retrieval and, as it hardly sees the spikes, how well
    the spikes alone find their text (spiking_to_text, what STUA aligns); or a fine-tuned model's own metric on its
    task. Then, how many of each layer's spikes differ from the float model's. The folder loads like any other; its
    integer spikes are those that are exported. By default the checkpoint's own recipe is used, its last phase at a
    tenth of its rates; with --recipe, what that recipe says.

    \b
    Examples:
      ashnets quantize ashnets-tiny --output runs/tiny-int8
      ashnets quantize ashnets-tiny --output runs/tiny-int8 --steps 50 --set 'phases.1.frozen=[transformer, concrete]'
      ashnets quantize runs/mine/model --corpus my-images --recipe own-pairs --output runs/mine-int8 --dry-run
      ashnets quantize runs/easy-vqa/model --data site-packages/easy_vqa --output runs/easy-vqa-int8
    """
    import ashnets

    report = ashnets.quantize(
        name,
        output=output,
        corpus=corpus,
        data=data,
        images=images,
        recipe=recipe,
        overrides=overrides or [],
        steps=steps,
        calibration=calibration,
        compared=compared,
        split=split,
        dry_run=dry_run,
    )
    warn(report)
    if as_json_ or dry_run:
        show(report if as_json_ else with_units(report), json_wanted=as_json_)
        return
    typer.echo(as_table(*_metrics(report)))
    typer.echo()
    typer.echo(as_table(list(_spikes(report)), SPIKES))
    typer.echo(f"\n{output}: loads like any other model; the report is in quantization.json")


def _metrics(report: dict[str, Any]) -> tuple[list[dict[str, Any]], Sequence[str]]:
    """Rows and their columns."""
    if "metrics" in report:
        found = [{"weights": weights, "split": report["split"], **one} for weights, one in report["metrics"].items()]
        return found, [key for key, value in found[0].items() if not isinstance(value, dict)]
    return list(_recalls(report)), RECALLS


def _recalls(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for weights, found in report["retrieval"].items():
        ways = {way: (found[way], found["chance"][way]) for way in ("text_to_image", "image_to_text")}
        if spiking := report.get("spiking_to_text", {}).get(weights):
            ways["spiking_to_text"] = spiking, spiking["chance"]
        for direction, (recalls, chance) in ways.items():
            yield {
                "weights": weights,
                "direction": direction,
                "split": report["split"],
                "images": found["images"],
                **recalls,
                **{f"chance {key}": value for key, value in chance.items()},
            }


def _spikes(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for weights, layers in report["spikes_changed"].items():
        for layer, found in layers.items():
            yield {"weights": weights, "layer": layer, **found}
