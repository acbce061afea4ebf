"""The energy report for a terminal: tables that fit 80 columns, and a note about the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ashnets.export.energy.html import verdict
from ashnets.export.energy.html_parts import energy, interval
from ashnets.export.energy.placement_page import cores_rows, heading, latency_sentence, traffic_rows
from ashnets.export.energy.report import has_memory
from ashnets.terminal import columns, table

PIPE_WIDTH = 150  # of sentences in a pipe or a file


def named_rows(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> str:
    """A table for a terminal: the first column has names, the others have numbers."""
    return table(head, rows, [i > 0 for i in range(len(head))], width)


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the report on stdout, or on ``console``."""
    if console is None:
        console = Console(highlight=False)
        console.width = columns() or PIPE_WIDTH
    shown = console

    def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        shown.print(f"\n{named_rows(head, rows, shown.width)}\n", markup=False, soft_wrap=True)

    model, data, counts = report["model"], report["data"], report["counts"]
    console.print(f"{model['name']} ({model['weights']})", markup=False, style="bold")
    console.print(f"{data['source']}; T = {counts['steps']}, each image from a reset state", markup=False)
    show(*_spikes(counts))
    console.print("Firing rate: spikes a neuron and step, mean and 95th percentile over the neurons.", markup=False)
    show(*_operations(counts))
    placement = report["placement"]
    if placement["fits"]:
        console.print(heading(placement), markup=False)
        show(*cores_rows(placement))
        show(*traffic_rows(placement))
        console.print(latency_sentence(placement), markup=False)
    else:
        console.print(f"{placement['reason']}. The routing of the profiles below is assumed.", markup=False)
    group = report["group"]
    if group:
        carried, reset = group["carried"]["synaptic_operations"], group["reset"]["synaptic_operations"]
        console.print(
            f"In groups of φ = {group['group_size']} ({group['images']} images, {group['how']}), membranes that are "
            f"carried over change the synaptic operations by {carried / (reset or 1) - 1:+.2%}.",
            markup=False,
        )
    show(*_energy(report))
    head, rows = _memory(report)
    if rows:
        show(head, rows)
    console.print("ANN: the ANN of the same shape as the spiking branch, one pass.", markup=False)
    for one in report["estimates"]:
        console.print(f"{one['profile']}: {verdict(one)}", markup=False)
    show(*_artificial(report))
    console.print(
        "Every figure in joules is an estimate: counts of this model on these images times constants of the "
        "profiles. The JSON and the page contain their sources and assumptions. No hardware was measured.",
        markup=False,
    )


def _spikes(counts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    n = counts["images"]
    head = ["spikes, an image", "neurons", "spikes", "firing rate", "p95", "silent", "saturated"]
    rows = [
        [
            layer["name"],
            f"{layer['neurons']:,}",
            f"{layer['spikes'] / n:,.0f}",
            f"{layer['rates']['mean']:.3f}",
            f"{layer['rates']['p95']:.3f}",
            f"{layer['rates']['silent']:.1%}",
            f"{layer['rates']['saturated']:.1%}",
        ]
        for layer in counts["layers"]
    ]
    rows.append(["all", f"{counts['neurons']:,}", f"{counts['spikes'] / n:,.0f}", "", "", "", ""])
    return head, rows


def _operations(counts: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    n = counts["images"]
    head = ["operations, an image", "synaptic operations", "membrane updates", "dense MACs"]
    parts = [*counts["layers"], {"name": "all", **counts}]
    rows = [
        [
            one["name"],
            f"{one['synaptic_operations'] / n:,.0f}",
            f"{one['membrane_updates'] / n:,.0f}",
            f"{one['dense_macs']:,}",
        ]
        for one in parts
    ]
    return head, rows


def _energy(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["estimates, an image", "synapses", "neurons", "routing", "spiking", "ANN", "ANN, int8"]
    rows = [
        [
            one["profile"],
            *(energy(one["spiking"][key]) for key in ("synapse", "neuron", "routing", "total")),
            energy(one["dense_twin"]),
            energy(one["int8_twin"]),
        ]
        for one in report["estimates"]
    ]
    return head, rows


def _memory(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["estimates with memory, an image", "spiking", "ANN"]
    rows = [
        [
            one["profile"],
            interval(one["spiking"]["total_with_memory"]),
            interval(one["dense_twin_with_memory"]),
        ]
        for one in report["estimates"]
        if has_memory(one)
    ]
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
