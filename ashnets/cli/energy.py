"""``ashnets energy``: what a model computes for an image, and what that would cost on several kinds of hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import show, warn

ImagesOption = Annotated[
    Path | None, typer.Option("--images", file_okay=False, help="A folder of images; captions are not needed.")
]
CorpusOption = Annotated[
    Path | None, typer.Option("--corpus", help="Instead: images with captions, a corpus, parquet or folder.")
]
SplitOption = Annotated[
    list[str] | None, typer.Option("--split", help="A split of the corpus; repeatable. All by default.")
]
SampleOption = Annotated[int, typer.Option("--sample", min=1, help="How many images at most, drawn by the seed.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the choice of images.")]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        help="A bundled profile or a .yaml file of your own; repeatable.",
        autocompletion=completing.profiles,
    ),
]
RandomOption = Annotated[
    bool, typer.Option("--random-weights", help="Count models without weights too, with random ones; says so.")
]


def energy(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that `ashnets list` shows, or the folder of a trained model.",
            autocompletion=completing.models,
        ),
    ],
    images: ImagesOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = None,
    sample: SampleOption = 64,
    seed: SeedOption = 0,
    profile: ProfileOption = None,
    random_weights: RandomOption = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", file_okay=False, help="Folder for JSON, CSV and an HTML page.")
    ] = None,
    as_json_: JsonOption = False,
) -> None:
    """Count a model's operations and estimate its energy.

    Spikes, firing rates, synaptic operations and membrane updates of the spiking branch are counted on real images,
    exactly; MACs of the other parts beside them. Profiles of hardware turn the counts into joules: every such figure is
    an estimate, and the verdict turns with the profile, so all bundled ones are shown unless you choose. Without
    images of your own, 64 drawings of the bundled gallery are taken.

    A profile of your own chip: `--profile template` says how to begin.

    \b
    Examples:
      ashnets energy ashnets-tiny
      ashnets energy ashnets-tiny --images my-images --output out/energy
      ashnets energy ashnets-tiny --corpus data/pictograms --split valid --profile 45nm-int8 --profile my-chip.yaml
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
        random_weights=random_weights,
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
