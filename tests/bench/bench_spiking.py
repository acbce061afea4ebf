"""Spiking layers against baselines: LIF alone, the abstract encoder, the whole model, growth, memory, binary inputs,
integers and half precision.

Each row is a ratio that is measured in one run: the median of interleaved rounds. The exit code is 1 if a target is
missed. Results of a section: ``out/bench/MACHINE/spiking-SECTION.{csv,json,png}``. Needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
from pathlib import Path

import drawing
import machine
import spiking_binary
import spiking_encoder
import spiking_formats
import spiking_growth
import spiking_lif
import spiking_memory
import spiking_model
from reporting import Report, Settings

from ashnets.figures import png, style
from ashnets.files import write_atomically
from ashnets.training.memory import keep_freed_memory

SECTIONS = {
    "lif": spiking_lif.run,
    "encoder": spiking_encoder.run,
    "model": spiking_model.run,
    "growth": spiking_growth.run,
    "memory": spiking_memory.run,
    "binary": spiking_binary.run,
    "formats": spiking_formats.run,
}
ROUNDS, QUICK_ROUNDS = 7, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=list(SECTIONS),
        metavar="SECTION",
        help=f"sections to run: {', '.join(SECTIONS)}",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that everything runs")
    parser.add_argument(
        "--rounds", type=int, help=f"rounds of each run; default: {ROUNDS}, or {QUICK_ROUNDS} with --quick"
    )
    parser.add_argument("--pairs", type=int, help="pairs in a step of the whole model; default: 16 (tiny) and 4 (r101)")
    parser.add_argument("--memory", type=float, default=10.0, help="maximum memory of a candidate in GB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=machine.OUTPUT, help="folder of the machines' folders")
    options = parser.parse_args()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    settings = Settings(rounds, options.seed, options.quick, options.pairs, options.memory * 1e9)
    place = machine.describe()
    about = {
        "machine": place,
        "seed": options.seed,
        "rounds": rounds,
        # for all candidates, as in `ashnets train`: new pages would cost more than the arithmetic
        "freed_memory_is_kept": keep_freed_memory(),
        "memory_is": "peak resident pages above those before the call, in a process of its own",
    }
    title = f"{place['processor']}, {place['threads']} threads, load {place['load_at_start'][0]}; seed {options.seed}"
    reports = [measure(name, settings, about, title, options.output) for name in options.only]
    sys.exit(not all(target.reached for report in reports for target in report.targets))


def measure(section: str, settings: Settings, about: dict[str, object], title: str, output: Path) -> Report:
    """Run a section, print what it found, and write it."""
    report = Report()
    SECTIONS[section](settings, report)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # returns the kept memory of this section to the system
    report.print(title)
    stem = "-".join(["spiking", section, *(["quick"] if settings.quick else [])])
    folder = output / machine.folder()
    report.write(folder, stem, about)
    with style():
        write_atomically(folder / f"{stem}.png", png(drawing.draw(report.rows, title)))
    print(f"{folder / stem}.csv, .json, .png")
    return report


if __name__ == "__main__":
    main()
