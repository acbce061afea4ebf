"""``ashnets compare``: models side by side."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import typer

from ashnets.cli.energy import (
    ImagesOption,
    PicturesOption,
    ProfileOption,
    RandomOption,
    SampleOption,
    SeedOption,
    SplitOption,
)
from ashnets.cli.models import JsonOption
from ashnets.cli.printing import as_json

TWO = ["45nm-int8", "loihi1-vs-a100"]


def compare(
    names: Annotated[list[str], typer.Argument(help="Names that `ashnets list` shows, or folders of trained models.")],
    images: ImagesOption = None,
    corpus: PicturesOption = None,
    split: SplitOption = None,
    sample: SampleOption = 16,
    seed: SeedOption = 0,
    profile: ProfileOption = None,
    random_weights: RandomOption = False,
    as_json_: JsonOption = False,
) -> None:
    """Set models side by side.

    What differs in their configuration, parameters, MACs, spikes and estimated energy under two profiles, and the
    results that the zoo has of them. A model without trained weights says so; its spikes are counted only with
    --random-weights, and its column then says that too.

    \b
    Examples:
      ashnets compare ashnets-tiny ashnets-tiny-ann
      ashnets compare ashnets-tiny runs/mine/model --images my-pictures
      ashnets compare ashnets-r18 ashnets-vit-b16 --random-weights --sample 4 --json
    """
    import ashnets
    from ashnets.export.profiles import load_profile
    from ashnets.export.report import measure
    from ashnets.export.report_pictures import Pictures, read_pictures
    from ashnets.zoo.comparing import compare as set_side_by_side
    from ashnets.zoo.comparing import gallery_unless, print_rows, to_dicts

    profiles = [load_profile(one) for one in profile or TWO]
    folder = gallery_unless(images, corpus)

    @cache
    def read(side: int) -> Pictures:
        return read_pictures(side, folder, corpus, split or (), sample, seed)

    found = set_side_by_side(
        names,
        load=ashnets.from_pretrained,
        measure=lambda model, chosen, name: measure(model, chosen, profiles, name=name),
        read=read,
        random_weights=random_weights,
    )
    if as_json_:
        typer.echo(as_json(to_dicts(found)))
    else:
        print_rows(found)
