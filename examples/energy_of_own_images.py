"""What the spiking branch computes for your own images, where it lies on a chip, and what it may cost.

    python examples/energy_of_own_images.py my-images --output out/energy

Nothing is measured on hardware: a profile turns exact counts into an estimate, and profiles differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import ashnets


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder of images")
    parser.add_argument("--model", default="ashnets-tiny", help="name or folder of a model")
    parser.add_argument("--chip", default="loihi1", help="bundled chip or your own file")
    parser.add_argument("--output", help="folder for JSON, CSV and an HTML page")
    given = parser.parse_args(arguments)

    report = ashnets.energy(given.model, images=given.images, chip=given.chip, output=given.output, progress=False)
    counts, placed = report["counts"], report["placement"]
    for layer in counts["layers"]:
        rate = layer["spikes"] / (layer["neurons"] * counts["steps"] * counts["images"])
        print(f"{layer['name']:>10}: {layer['neurons']:,} neurons, firing rate {rate:.3f}")
    print(f"{placed['cores']} of {placed['cores_of_chip']} cores of {placed['title']}")
    for one in report["estimates"]:
        print(f"{one['profile']:>24}: {one['spiking']['total'] / 1e6:,.1f} µJ an image")


if __name__ == "__main__":
    main()
