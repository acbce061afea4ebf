"""The energy report for a terminal: three tables, and a note about the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ashnets.export.energy.html import energy, interval, verdict
from ashnets.export.energy.report import has_memory
from ashnets.terminal import columns, table

PIPE_WIDTH = 150  # of sentences in a pipe or a file


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the report on stdout, or on ``console``."""
    if console is None:
        console = Console(highlight=False)
        console.width = columns() or PIPE_WIDTH
    shown = console

    def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        text = table(head, rows, [i > 0 for i in range(len(head))], shown.width)
        shown.print(f"\n{text}\n", markup=False, soft_wrap=True)

    model, data, counts = report["model"], report["data"], report["counts"]
    console.print(f"{model['name']} ({model['weights']})", markup=False, style="bold")
    console.print(f"{data['source']}; T = {counts['steps']}, each image from a reset state", markup=False)
    show(*_counts(counts))
    group = report["group"]
    if group:
        carried, reset = group["carried"]["synaptic_operations"], group["reset"]["synaptic_operations"]
        console.print(
            f"In groups of φ = {group['group_size']} ({group['images']} images, {group['how']}), membranes that are "
            f"carried over change the synaptic operations by {carried / (reset or 1) - 1:+.2%}.",
            markup=False,
        )
    show(*_energy(report))
    for one in report["estimates"]:
        console.print(f"{one['profile']}: {verdict(one)}", markup=False)
    show(*_artificial(report))
    console.print(
        "Every figure in joules is an estimate: counts of this model on these images times constants of the "
        "profiles. The JSON and the page contain their sources and assumptions. No hardware was measured.",
        markup=False,
    )


def _counts(counts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    n = counts["images"]
    head = [
        "for an image",
        "neurons",
        "spikes",
        "firing rate",
        "p95",
        "silent",
        "saturated",
        "synaptic operations",
        "membrane updates",
        "dense MACs",
    ]
    rows = [
        [
            layer["name"],
            f"{layer['neurons']:,}",
            f"{layer['spikes'] / n:,.0f}",
            f"{layer['rates']['mean']:.3f}",
            f"{layer['rates']['p95']:.3f}",
            f"{layer['rates']['silent']:.1%}",
            f"{layer['rates']['saturated']:.1%}",
            f"{layer['synaptic_operations'] / n:,.0f}",
            f"{layer['membrane_updates'] / n:,.0f}",
            f"{layer['dense_macs']:,}",
        ]
        for layer in counts["layers"]
    ]
    rows.append(
        [
            "all",
            f"{counts['neurons']:,}",
            f"{counts['spikes'] / n:,.0f}",
            "",
            "",
            "",
            "",
            f"{counts['synaptic_operations'] / n:,.0f}",
            f"{counts['membrane_updates'] / n:,.0f}",
            f"{counts['dense_macs']:,}",
        ]
    )
    return head, rows


def _energy(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = [
        "estimates, an image",
        "synapses",
        "neurons",
        "routing",
        "spiking",
        "dense twin",
        "int8 twin",
        "spiking with memory",
        "dense twin with memory",
    ]
    rows = []
    for one in report["estimates"]:
        spiking = one["spiking"]
        memory = ["–", "–"]
        if has_memory(one):
            memory = [interval(spiking["total_with_memory"]), interval(one["dense_twin_with_memory"])]
        rows.append(
            [
                one["profile"],
                *(energy(spiking[key]) for key in ("synapse", "neuron", "routing", "total")),
                energy(one["dense_twin"]),
                energy(one["int8_twin"]),
                *memory,
            ]
        )
    return head, rows


def _artificial(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    parts = report["artificial"]
    head = ["parts that do not spike", *(part.replace("_", " ") for part in parts), "all"]
    macs = [found["macs"] for found in parts.values()]
    rows = [["MACs", *(f"{value:,}" for value in (*macs, sum(macs)))]]
    for one in report["estimates"]:
        values = [one["artificial"][part] for part in parts]
        rows.append([one["profile"], *(energy(value) for value in (*values, sum(values)))])
    return head, rows
