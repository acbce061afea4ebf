"""Time and memory of placing every architecture's spiking encoder on cores of Loihi 1, for each mapping.

An architecture that needs more than one chip is placed on a mesh with more columns. Weights are random, which changes
nothing: a placement depends on shapes alone.

    python tests/bench/bench_placement.py [NAME ...] [--mapping best]
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from ashnets.export.graph import from_model
from ashnets.export.placement.chips import load_chip
from ashnets.export.placement.mapping import MAPPINGS
from ashnets.export.placement.placing import place_on_any
from ashnets.export.placement.traffic import traffic_tables
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.zoo.registry import config_of

ARCHITECTURES = ["ashnets-tiny", "ashnets-r18", "ashnets-r101", "ashnets-r152", "ashnets-vit-b16"]


def main() -> None:
    """Place each, and print a row for each mapping, with and without shared convolution weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--mapping", action="append", choices=MAPPINGS)
    options = parser.parse_args()
    table = Table("model", "mapping", "weights", "cores", "seconds", "peak GB")
    chip = load_chip("loihi1")
    for name in options.names:
        graph = from_model(AbstractEncoder(config_of(name)).eval(), name)
        for mapping in options.mapping or ("spatial", "best"):
            for shared in (True, False):
                start = time.process_time()
                placement = place_on_any(graph, replace(chip, shared_weights=shared), mapping)
                traffic_tables(placement)
                seconds = time.process_time() - start
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
                weights = "shared" if shared else "one a synapse"
                table.add_row(name, mapping, weights, f"{placement.cores:,}", f"{seconds:.2f}", f"{peak:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
