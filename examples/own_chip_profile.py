"""Describe a chip of your own, and let ashnets place a model on it and estimate its energy.

    python examples/own_chip_profile.py --output out/my-chip

The script starts from the bundled files of Loihi 1 and changes some numbers. The numbers below are invented: replace
each by your own, with its source.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

import ashnets
from ashnets.export.energy import profiles
from ashnets.export.placement import chips

SOURCE = "invented for this example"


def figure(value: float, unit: str) -> dict[str, object]:
    return {"value": value, "unit": unit, "year": 2026, "source": SOURCE}


def write_chip(path: Path) -> None:
    """A mesh with half the tiles of Loihi 1, and cores with four times its neurons."""
    chip = yaml.safe_load((Path(chips.__file__).parent / "loihi1.yaml").read_text(encoding="utf-8"))
    chip["title"] = "an invented chip"
    chip["mesh"].update(columns=4, rows=4, source=SOURCE)
    chip["core"]["neurons"] = figure(4096, "neurons")
    path.write_text(yaml.safe_dump(chip, allow_unicode=True), encoding="utf-8")


def write_profile(path: Path, chip: Path) -> None:
    """Energies of the chip's operations; the dense parts of the model run on an A100."""
    profile = yaml.safe_load((Path(profiles.__file__).parent / "loihi1-with-a100.yaml").read_text(encoding="utf-8"))
    profile.update(title="an invented chip, A100 for the dense parts", chip=chip.name)
    profile["spiking"]["synaptic_operation"] = figure(10.0, "pJ")
    profile["spiking"]["neuron_update"] = figure(30.0, "pJ")
    path.write_text(yaml.safe_dump(profile, allow_unicode=True), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ashnets-tiny", help="name or folder of a model")
    parser.add_argument("--images", help="folder of images; by default the bundled gallery")
    parser.add_argument("--output", type=Path, required=True, help="folder for the two files and the report")
    given = parser.parse_args(arguments)

    given.output.mkdir(parents=True, exist_ok=True)
    chip, profile = given.output / "my-chip.yaml", given.output / "my-profile.yaml"
    write_chip(chip)
    write_profile(profile, chip)
    options = {"images": given.images, "sample": 8, "profiles": [profile, "45nm-int8"], "progress": False}
    report = ashnets.energy(given.model, output=given.output / "report", **options)
    placed = report["placement"]
    print(f"{placed['cores']} of {placed['cores_of_chip']} cores of {placed['title']}")
    for one in report["estimates"]:
        print(f"{one['title']}: {one['spiking']['total'] / 1e6:,.1f} µJ an image")


if __name__ == "__main__":
    main()
