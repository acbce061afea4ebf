"""Time and memory of placing every architecture's spiking encoder on cores of Loihi 1, for each mapping.

The bound of the time is the encoder's own run on one image of T steps, on one thread and in the same process: a row is
CPU time of placement and traffic tables over CPU time of that run. The bound of the memory is 4 bytes for each weight
and membrane: a row is the peak of what the placement allocates over that. An architecture that needs more than one chip
is placed on a mesh with more columns. Weights are random, which changes nothing: a placement depends on shapes alone.
Architectures with the same spiking encoder share a row.

    python tests/bench/bench_placement.py [NAME ...] [--mapping best] [--rounds 3]

The linear mapping spreads the channels of a place over many cores, so its tables are the longest.
Results: ``out/bench/MACHINE/placement.{csv,json}``; the JSON stands in zoo/results/speed, for docs/energy.md.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import machine
import torch
from measuring import interleaved
from reporting import Report
from spiking_encoder import alike

from ashnets.export.graph import SpikingGraph, from_model
from ashnets.export.placement.chips import Chip, load_chip
from ashnets.export.placement.mapping import MAPPINGS
from ashnets.export.placement.placed import Placement
from ashnets.export.placement.placing import place, place_on_any
from ashnets.export.placement.traffic import traffic_tables
from ashnets.model.abstract_encoder import AbstractEncoder
from ashnets.zoo.registry import config_of

ARCHITECTURES = [f"ashnets-{name}" for name in ("tiny", "r18", "r50", "r101", "r152", "vit-b16")]
TIME, MEMORY = "placement / one image", "peak / weights and membranes"


def main() -> None:
    """Place each by each mapping, and compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--mapping", action="append", choices=MAPPINGS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=machine.OUTPUT, help="folder of the machines' folders")
    options = parser.parse_args()
    torch.set_num_threads(1)
    computer = machine.describe()
    about: dict[str, object] = {"machine": computer, "rounds": options.rounds, "memory_is": "peak of tracemalloc"}
    report, sizes, cores = Report(), {}, {}
    for names in alike(options.names):
        encoder = ", ".join(names)
        graph = from_model(AbstractEncoder(config_of(names[0])).eval(), encoder)
        candidates: dict[str, Callable[[], Placement]] = {}
        for mapping in options.mapping or MAPPINGS:
            chip = place_on_any(graph, load_chip("loihi1"), mapping).chip  # with more columns where one is too small
            candidates[mapping] = partial(placed, graph, chip, mapping)
        spikes = torch.zeros(graph.time_steps, 1, *graph.input_shape)
        report.progress(encoder)
        run = {"run": partial(graph.run, spikes)}
        seconds = interleaved({**candidates, **run}, options.rounds, clock=time.process_time)
        weights = sum(layer.weight.numel() + layer.bias.numel() for layer in graph.layers)
        neurons = sum(layer.neurons for layer in graph.layers)
        sizes[encoder] = {"weights": weights, "neurons": neurons, "synapses": synapses(graph)}
        for mapping, call in candidates.items():
            tracemalloc.start()
            cores[f"{encoder}: {mapping}"] = call().cores
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            case, bound = f"{encoder}: {mapping}", 4.0 * (weights + neurons)
            report.add_ratio("placement", case, TIME, seconds[mapping], seconds["run"])
            report.add_ratio("placement", case, MEMORY, [peak], [bound], "B")
    report.note("cores", cores)
    report.note("sizes", sizes)
    report.print(f"{computer['processor']}, one thread")
    report.write(options.output / machine.folder(), "placement", about)


def placed(graph: SpikingGraph, chip: Chip, mapping: str) -> Placement:
    """A placement with its traffic tables."""
    found = place(graph, chip, mapping)
    traffic_tables(found)
    return found


def synapses(graph: SpikingGraph) -> int:
    """Synapses without those on padding."""
    found = place_on_any(graph, load_chip("loihi1"), "spatial")
    return sum(int(r.of_channels(r.fan_out).sum()) for r in found.reaches)


if __name__ == "__main__":
    main()
