"""The tables and the drawing of a model card, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ashnets.zoo.describing import Description
from ashnets.zoo.numbers import EnergyRow, PaperRow

if TYPE_CHECKING:
    from ashnets.configuration import AshNetsConfig


def drawing(description: Description, config: AshNetsConfig) -> str:
    """The architecture in characters, with this model's sizes."""
    s = description.symbols
    concrete = f"V: {config.backbone} ─ {s['grid']} × {s['grid']} × {s['M1']} ─ F_CNN"
    transformer = f"─ alignment transformer ({s['layers']} layers) ─ heads"
    if description.spiking_channels:
        stack = " ─ ".join(map(str, [*description.spiking_channels, s["M2"] or s["M1"]]))
        spiking = f"Bernoulli, T = {s['T']} ─ E: {stack} spiking channels"
        spiking += f" ─ S ─ collector C ({s['M1']} × {s['M2']}) ─ F_SNN" if s["M2"] else " ─ F_SNN"
        width = max(len(concrete), len(spiking))
        ratio = {"trainable": "SR", "fixed": "SR = 1", "snn": "F_SNN alone"}[config.summary_ratio]
        top = f"image ─┬─ {concrete} {'─' * (width - len(concrete))}─┬─ {ratio} ─┐"
        middle = f"       └─ {spiking} {'─' * (width - len(spiking))}─┘{' ' * (len(ratio) + 4)}│"
        lines = [top, middle, f"text {'─' * (len(top) - 6)}┴{transformer}"]
    else:
        top = f"image ── {concrete} ──┬"
        lines = [top + transformer, f"text {'─' * (len(top) - 6)}┘"]
    return "```text\n" + "\n".join(lines) + "\n```"


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows that share their keys, the keys first."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(str(row[key]) for key in head)} |" for row in rows]
    return "\n".join(lines)


def measured_tables(
    rows: Sequence[Mapping[str, str]], circumstances: Sequence[str], baselines: Sequence[str] = ()
) -> str:
    """Results as in the file, with chance and blind baselines, which are separate columns or rows.

    Rows with the same columns share a table; the circumstances of its rows are listed below it. Columns that split a
    metric by kinds of items (``by ...``) are left out.

    Args:
        circumstances: columns that describe how a row was measured.
        baselines: values of the column ``variant`` that mean chance or a baseline.
    """
    parts = []
    for keys in dict.fromkeys(tuple(row) for row in rows):
        alike = [row for row in rows if tuple(row) == keys]
        aside = (*circumstances, "model", "measured")
        shown = [key for key in keys if key not in aside and not key.startswith("by ") and any(r[key] for r in alike)]
        parts.append(markdown_table([{key: row[key] for key in shown} for row in alike]))
        facts = {key: sorted({row[key] for row in alike if row.get(key)}) for key in circumstances if key in keys}
        how = "; ".join(f"{key.replace('_', ' ')}: {', '.join(values)}" for key, values in facts.items() if values)
        parts.append(f"Measured with: {how}.") if how else None
        has_chance = any(key.startswith(("chance", "blind")) for key in keys)
        if not has_chance and not any(row.get("variant") in baselines for row in alike):
            parts.append("The file contains neither chance nor a blind baseline for these rows.")
    return "\n\n".join(parts)


def paper_tables(rows: Sequence[PaperRow]) -> str:
    """The paper's rows about this architecture, with their contradictions; none of them was measured here."""
    if not rows:
        return ""
    parts = [
        "These rows are printed in the paper and were measured by its authors. These weights did not produce them."
    ]
    for row in rows:
        parts += [f"Table {row.table}, {row.title}:", markdown_table([row.cells])]
        parts += [f"*Flag: {flag}.*" for flag in row.flags]
    return "\n\n".join(parts)


def energy_table(rows: Sequence[EnergyRow]) -> str:
    """Estimated energy of one image under each profile, with the assumptions behind the figures."""
    if not rows:
        return ""
    table = [
        {
            "profile": row.title,
            "spiking branch, µJ": _microjoules(row.spiking),
            "with memory, µJ": " to ".join(map(_microjoules, row.with_memory)),
            "ANN of the same shape, µJ": _microjoules(row.dense),
            "parts that do not spike, µJ": _microjoules(row.artificial),
        }
        for row in rows
    ]
    first = rows[0]
    lines = [
        f"Counted on {first.data}: {first.spikes:,.0f} spikes and {first.synaptic_operations:,.0f} synaptic operations "
        "an image. The figures are estimates, without memory traffic unless memory is named:",
        markdown_table(table),
        "Assumptions:",
    ]
    assumptions = dict.fromkeys(one for row in rows for one in row.assumptions)
    return "\n\n".join([*lines, "\n".join(f"- {one}" for one in assumptions)])


def _microjoules(picojoules: float) -> str:
    return f"{picojoules / 1e6:.3g}"
