"""``ashnets compare``: compare models."""

from __future__ import annotations

from typing import Annotated

import typer

from ashnets.cli import completing
from ashnets.cli.energy import (
    ChipOption,
    CorpusOption,
    ImagesOption,
    MappingOption,
    ProfileOption,
    RandomOption,
    SampleOption,
    SeedOption,
    SplitOption,
)
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_json


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Names from `ashnets list`, or folders of trained models.", autocompletion=completing.models
        ),
    ],
    images: ImagesOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = None,
    sample: SampleOption = 16,
    seed: SeedOption = 0,
    profile: ProfileOption = None,
    chip: ChipOption = None,
    mapping: MappingOption = "best",
    random_weights: RandomOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Compare models in one table.

    The table shows the differences in configuration, the parameters, MACs, spikes, estimated energy under two
    hardware profiles, and the results in the zoo, as means over seeds with standard deviations. A model without trained
    weights is marked. Its spikes are counted only with --random-weights, and its column then says so.

    \b
    Examples:
      ashnets compare ashnets-tiny ashnets-tiny-ann
      ashnets compare ashnets-tiny runs/mine/model --images my-images
      ashnets compare ashnets-r18 ashnets-vit-b16 --random-weights --sample 4 --json
    """
    import ashnets
    from ashnets.export.models import TWO
    from ashnets.zoo.comparing import print_rows, to_dicts

    found = ashnets.compare(
        names,
        images=images,
        corpus=corpus,
        splits=split or (),
        sample=sample,
        seed=seed,
        profiles=profile or TWO,
        chip=chip,
        mapping=mapping,
        random_weights=random_weights,
    )
    if as_json_:
        typer.echo(as_json(to_dicts(found)))
    else:
        print_rows(found)
