"""``ashnets energy``: count the operations of a model and estimate its energy on different hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show, warn

ImagesOption = Annotated[
    Path | None, typer.Option("--images", file_okay=False, help="Folder of images; captions are not needed.")
]
CorpusOption = Annotated[
    Path | None,
    typer.Option("--corpus", help="Instead of --images: captioned images, as a corpus, parquet files or a folder."),
]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="Split of the corpus; repeatable. Default: all splits.")
]
SampleOption = Annotated[int, typer.Option("--sample", min=1, help="Maximum number of images, selected at random.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Random seed for the selection of images and for random weights.")]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        help="Hardware profile: a bundled name or your own .yaml file; repeatable.",
        autocompletion=completing.profiles,
    ),
]
RandomOption = Annotated[
    bool, typer.Option("--random-weights", help="Also count models without trained weights, using random weights.")
]
ChipOption = Annotated[
    str | None,
    typer.Option("--chip", help="Chip for the placement: loihi1, or your own .yaml file; the model must fit it."),
]
MappingOption = Annotated[str, typer.Option("--mapping", help="Neurons to cores: best, spatial or linear.")]
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        help="trained, or random: drawn by --seed, tdBN calibrated on the images; every output says so.",
    ),
]


def energy(
    name: Annotated[
        str,
        typer.Argument(
            help="Name from `ashnets list`, or the folder of a trained model.",
            autocompletion=completing.models,
        ),
    ],
    images: ImagesOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = None,
    sample: SampleOption = 64,
    seed: SeedOption = 0,
    profile: ProfileOption = None,
    chip: ChipOption = None,
    mapping: MappingOption = "best",
    weights: WeightsOption = "trained",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", file_okay=False, help="Output folder for JSON, CSV and an HTML page."),
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Count a model's operations, place it on a chip and estimate its energy.

    Spikes, firing rates, synaptic operations and membrane updates of the spiking branch are counted exactly, on real
    images. MACs of the other parts are reported next to them. The branch is placed on the cores of a chip, which gives
    memory, messages, hops, network energy and latency. A hardware profile converts the counts to joules. Every energy
    figure is an estimate, and the conclusion depends on the profile, so all bundled profiles are shown by default.
    Without --images or --corpus, 64 images of the bundled gallery are used.

    To write a profile for your own chip, start with `--profile template`.

    \b
    Examples:
      ashnets energy ashnets-tiny
      ashnets energy ashnets-tiny --images my-images --output out/energy
      ashnets energy ashnets-tiny --chip loihi1 --mapping spatial
      ashnets energy ashnets-r18 --weights random --seed 1 --sample 2
      ashnets energy ashnets-tiny --corpus data/pictograms --split valid
      ashnets energy ashnets-tiny --profile 45nm-int8 --profile my-chip.yaml
    """
    import ashnets
    from ashnets.export.energy.text import print_report

    report = ashnets.energy(
        name,
        images=images,
        corpus=corpus,
        splits=split or (),
        sample=sample,
        seed=seed,
        profiles=profile or (),
        chip=chip,
        mapping=mapping,
        weights=weights,
        output=output,
    )
    warn(report)
    if as_json_:
        show(report, json_wanted=True)
        return
    print_report(report)
    if output is not None:
        from ashnets.export.energy.report import FILES

        for file in FILES:
            typer.echo(f"→ {output / file}")
