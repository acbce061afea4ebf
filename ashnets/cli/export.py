"""``ashnets export``: export the spiking encoder to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.energy import ChipOption, MappingOption, WeightsOption
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show, warn


def export(
    name: Annotated[
        str,
        typer.Argument(help="Model: a name, a folder or a Hub repository.", autocompletion=completing.models),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Format: lava, onnx, onnx-sequence, onnx-unrolled, onnx-model, nir or sana-fe.",
            autocompletion=completing.formats,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Output folder.")],
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Round a floating-point model to integers; this changes its spikes.")
    ] = False,
    counts: Annotated[
        bool, typer.Option("--counts", help="ONNX only: add the spike counts of each layer as outputs.")
    ] = False,
    simulate: Annotated[
        float | None,
        typer.Option(
            "--simulate", min=1, help="Lava and SANA-FE: also run the simulation, for at most this many seconds."
        ),
    ] = None,
    weights: WeightsOption = "trained",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of random weights.")] = 0,
    images: Annotated[
        Path | None,
        typer.Option("--images", file_okay=False, help="Folder of images that calibrate random weights."),
    ] = None,
    chip: ChipOption = None,
    mapping: MappingOption = "best",
    python: Annotated[
        Path | None, typer.Option("--python", help="SANA-FE only: a Python that has sanafe. Default: this one.")
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Export the spiking encoder to another tool.

    The output folder contains the network, a sample input with its expected spikes, a README with code to load the
    network, and a report. The exported network is loaded and run, and every spike is compared.

    \b
    lava: HDF5 for Lava-DL's netx. Needs a model of precision int8, or --quantize.
    onnx: one time step per call; membrane states are inputs and outputs.
    onnx-sequence: a whole sequence of any length T.
    onnx-unrolled: a whole sequence without a loop.
    onnx-model: the whole model, from images and text to its outputs.
    nir: the Neuromorphic Intermediate Representation.
    sana-fe: a chip and the network placed on it, for the simulator SANA-FE.

    \b
    Examples:
      ashnets export ashnets-tiny --to onnx --output out/onnx
      ashnets export ashnets-tiny --to lava --quantize --output out/lava
      ashnets export ashnets-tiny --to nir --output out/nir --json
      ashnets export ashnets-tiny --to sana-fe --quantize --output out/sanafe
      ashnets export ashnets-r18 --to onnx --weights random --seed 1 --output out/r18
    """
    import ashnets

    report = ashnets.export_encoder(
        name,
        to,
        output=output,
        quantize=quantize,
        counts=counts,
        simulate=simulate,
        weights=weights,
        seed=seed,
        images=images,
        chip=chip,
        mapping=mapping,
        python=python,
        progress=not as_json_,
    )
    warn(report)
    placement = report.get("placement")
    show(report if as_json_ else {k: v for k, v in report.items() if k != "placement"}, json_wanted=as_json_)
    if placement and not as_json_:
        from ashnets.export.energy.placement_page import cores_rows, heading
        from ashnets.export.energy.text import named_rows
        from ashnets.terminal import columns

        typer.echo(f"{heading(placement)}\n{named_rows(*cores_rows(placement), columns())}")
