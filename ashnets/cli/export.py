"""``ashnets export``: the spiking encoder in the form that another tool reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.printing import show, warn


def export(
    name: Annotated[
        str,
        typer.Argument(
            help="A model with weights: a name, a folder or a Hub repository.", autocompletion=completing.models
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="lava, onnx, onnx-sequence, onnx-unrolled, onnx-model or nir.",
            autocompletion=completing.formats,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the files.")],
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Round a model trained in floats to integers; its spikes change.")
    ] = False,
    counts: Annotated[
        bool, typer.Option("--counts", help="For ONNX: give the spikes of each layer as further outputs.")
    ] = False,
    simulate: Annotated[
        float | None,
        typer.Option("--simulate", min=1, help="For lava: run its CPU simulation for at most so many seconds."),
    ] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Export the spiking encoder to another tool.

    The folder receives the network, a sample input with the spikes expected of it, a README with the lines that
    load it, and a report. The network is read back and run, and every spike is compared.

    lava: HDF5 for Lava-DL's netx, integers; a model of precision int8, or --quantize.
    onnx: one step a call, the membranes go in and come out. onnx-sequence: a whole sequence, any T.
    onnx-unrolled: a whole sequence without a loop. onnx-model: the whole model, images and text to its outputs.
    nir: the Neuromorphic Intermediate Representation.

    \b
    Examples:
      ashnets export ashnets-tiny --to onnx --output out/onnx
      ashnets export ashnets-tiny --to lava --quantize --output out/lava
      ashnets export ashnets-tiny --to nir --output out/nir --json
    """
    import ashnets

    report = ashnets.export_encoder(
        name, to, output=output, quantize=quantize, counts=counts, simulate=simulate, progress=not as_json_
    )
    warn(report)
    show(report, json_wanted=as_json_)
