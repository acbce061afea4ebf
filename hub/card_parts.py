"""The tables and the drawing of a model card, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ashnets.zoo.describing import Description
from ashnets.zoo.numbers import EnergyRow, PaperRow


def drawing(description: Description, config: Any) -> str:
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


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows that share their keys, the keys first."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(str(row[key]) for key in head)} |" for row in rows]
    return "\n".join(lines)


def measured_tables(
    rows: Sequence[Mapping[str, str]], circumstances: Sequence[str], baselines: Sequence[str] = ()
) -> str:
    """Results as they stand in the file, with chance and blind baselines, which are columns or rows of their own.

    Rows of files with other columns get tables of their own; how a row came about stands beneath its table. Columns
    that split a metric by kinds of items (``by ...``) are left to the file.

    Args:
        circumstances: columns that say how a row came about.
        baselines: what the column ``variant`` calls chance and baselines.
    """
    parts = []
    for keys in dict.fromkeys(tuple(row) for row in rows):
        alike = [row for row in rows if tuple(row) == keys]
        aside = (*circumstances, "model", "measured")
        shown = [key for key in keys if key not in aside and not key.startswith("by ") and any(r[key] for r in alike)]
        parts.append(markdown_table([{key: row[key] for key in shown} for row in alike]))
        facts = {key: sorted({row[key] for row in alike if row.get(key)}) for key in circumstances if key in keys}
        how = "; ".join(f"{key.replace('_', ' ')}: {', '.join(values)}" for key, values in facts.items() if values)
        parts.append(f"How: {how}.") if how else None
        said = any(key.startswith(("chance", "blind")) for key in keys)
        if not said and not any(row.get("variant") in baselines for row in alike):
            parts.append("The file holds neither chance nor a blind baseline for these rows.")
    return "\n\n".join(parts)


def paper_tables(rows: Sequence[PaperRow]) -> str:
    """What the paper prints of this architecture, with what contradicts it; nothing of it was measured here."""
    if not rows:
        return ""
    parts = ["Printed in the paper, measured by its authors. These weights did not produce any of it."]
    for row in rows:
        parts += [f"Table {row.table}, {row.title}:", markdown_table([row.cells])]
        parts += [f"*Flag: {flag}.*" for flag in row.flags]
    return "\n\n".join(parts)


def energy_table(rows: Sequence[EnergyRow]) -> str:
    """Estimated energy of one image by each profile, with what the figures take for granted."""
    if not rows:
        return ""
    table = [
        {
            "profile": row.title,
            "spiking branch, µJ": _microjoules(row.spiking),
            "with memory, µJ": " to ".join(map(_microjoules, row.with_memory)),
            "dense network of its shape, µJ": _microjoules(row.dense),
            "parts that do not spike, µJ": _microjoules(row.artificial),
        }
        for row in rows
    ]
    first = rows[0]
    lines = [
        f"Counted on {first.data}: {first.spikes:,.0f} spikes and {first.synaptic_operations:,.0f} synaptic operations "
        "an image. Estimates, arithmetic alone where memory is not named:",
        markdown_table(table),
        "Assumed:",
    ]
    assumptions = dict.fromkeys(one for row in rows for one in row.assumptions)
    return "\n\n".join([*lines, "\n".join(f"- {one}" for one in assumptions)])


def _microjoules(picojoules: float) -> str:
    return f"{picojoules / 1e6:.3g}"
