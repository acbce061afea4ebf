"""``ashnets quantize``: quantize the spiking branch to integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_table, show, warn, with_units
from ashnets.cli.tasks import ImagesOption
from ashnets.cli.training import DryRunOption, OverridesOption
from ashnets.files import JsonObject

RECALLS = ("weights", "direction", "split", "images", "R@1", "R@10", "chance R@1", "chance R@10")
SPIKES = ("weights", "layer", "rate_float", "rate", "changed", "changed_per_spike")


def quantize(
    name: Annotated[
        str,
        typer.Argument(
            help="Floating-point model: a name, a folder or a Hub repository.", autocompletion=completing.models
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Output folder for the quantized model.")
    ],
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", help="For a pre-trained model: captioned images. Default: data/pictograms."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", file_okay=False, help="For a fine-tuned model: folder of its dataset."),
    ] = None,
    images: ImagesOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Fine-tuning recipe: a bundled name or a file. Default: the recipe of the checkpoint.",
            autocompletion=completing.recipes,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Number of fine-tuning steps; 0 means rounding only.")] = 200,
    calibration: Annotated[
        int,
        typer.Option(min=0, help="Number of training images for calibrating tdBN; 0 keeps its statistics."),
    ] = 1024,
    compared: Annotated[int, typer.Option(min=1, help="Number of images on which spikes are compared.")] = 256,
    split: Annotated[
        str | None, typer.Option(help="Split for the metrics. Default: the validation split of the recipe.")
    ] = None,
    overrides: OverridesOption = None,
    dry_run: DryRunOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Quantize the spiking branch of a model to integers, as neuromorphic chips compute.

    Three steps: calibrate tdBN, round weights to 8 bits and membranes to 24 bits, fine-tune with rounding in the
    forward pass (quantization-aware training). Prints the metric without spikes, before quantization, and after each
    step. For a pre-trained model this is image-text retrieval, and retrieval of text by the spikes alone
    (spiking_to_text, the alignment that STUA trains); for a fine-tuned model, the metric of its task. Then prints how
    many spikes of each layer differ from the floating-point model. The quantized model loads like any other model, and
    `ashnets export` exports exactly its integer spikes. By default, fine-tuning uses the last phase of the
    checkpoint's recipe at a tenth of its learning rates; with --recipe, that recipe as it is.

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
    typer.echo(f"\n{output}: the quantized model, loads like any other model; the report is in quantization.json")


def _metrics(report: JsonObject) -> tuple[list[JsonObject], Sequence[str]]:
    """Rows and their columns."""
    if "metrics" in report:
        found = [{"weights": weights, "split": report["split"], **one} for weights, one in report["metrics"].items()]
        return found, [key for key, value in found[0].items() if not isinstance(value, dict)]
    return list(_recalls(report)), RECALLS


def _recalls(report: JsonObject) -> Iterator[JsonObject]:
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


def _spikes(report: JsonObject) -> Iterator[JsonObject]:
    for weights, layers in report["spikes_changed"].items():
        for layer, found in layers.items():
            yield {"weights": weights, "layer": layer, **found}
