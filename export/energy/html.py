"""The energy report as one self-contained HTML page: no script, no external font or image.

``templates/report.html`` contains the frame and the style, for narrow screens, wide screens and paper, light and dark.
This file fills it from the report's dictionary.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ashnets.export.energy.html_parts import digits, energy, interval, legend, memory_size, number, table
from ashnets.export.energy.placement_page import placement_section
from ashnets.export.energy.svg import Line, Range, lines, ranges, rate_bars, stacked

TEMPLATE = Path(__file__).resolve().parent / "templates" / "report.html"
PARTS = (("synapse", "synapses"), ("neuron", "neurons"), ("routing", "routing"))
MICROJOULE = 1e6


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    model, data = report["model"], report["data"]
    environment = report["environment"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Energy estimate: {model['name']}"),
        model=escape(model["name"]),
        subject=escape(
            f"Weights: {model['weights']}. Data: {data['source']}. T = {model['time_steps']} steps, "
            f"{model['image_size']} px, {model['visual_tokens']} visual tokens."
        ),
        lead=_lead(report),
        counts=_counts(report),
        reading=(
            "All figures are for one image. A dot is arithmetic and routing. A bar extends from the low to the high "
            "end of memory traffic, if the profile has memory levels. The axes are logarithmic: each line is ten "
            "times the previous one."
        ),
        overview=_overview(report),
        cards="".join(_card(one) for one in report["estimates"]),
        curves_text=(
            "The points over T are counted, step by step, on the same images. The points over the input rate "
            "are computed: the firing rates of all layers are scaled by the same factor. The vertical line marks "
            "the counted value."
        ),
        curves_key=legend(
            [
                ("spiking", "spiking branch", False),
                ("spiking", "with memory, high end", True),
                ("twin", "ANN of the same shape", False),
                ("twin", "with memory, high end", True),
            ]
        ),
        curves="".join(map(_curve, report["estimates"], report["curves"])),
        placement=placement_section(report),
        group=_group(report),
        artificial=_artificial(report),
        sources=_sources(report),
        footer=escape(
            f"ashnets {environment.get('ashnets', '')}, torch {environment.get('torch', '')}. Every figure in joules "
            "on this page is an estimate: counts of this model on these images, times constants from the sources "
            "above. No hardware was measured."
        ),
    )


def verdict(one: dict[str, Any]) -> str:
    """One sentence that compares the spiking branch with the ANN of the same shape."""
    spiking, twin = one["spiking"]["total"], one["dense_twin"]
    cheaper = spiking < twin
    ratio = (twin / spiking if cheaper else spiking / twin) if min(spiking, twin) else float("inf")
    than = "cheaper" if cheaper else "more expensive"
    text = f"The spiking branch is {digits(ratio)} times {than} than the ANN of the same shape"
    if not _memory(one):
        return f"{text}."
    low, high = one["spiking"]["total_with_memory"], one["dense_twin_with_memory"]
    if low["high"] < high["low"]:
        return f"{text}; with memory it is always cheaper."
    if low["low"] > high["high"]:
        return f"{text}; with memory it is always more expensive."
    ends = [low[end] / high[end] for end in ("low", "high")]
    words = [f"{digits(1 / e)} times cheaper" if e < 1 else f"{digits(e)} times more expensive" for e in ends]
    return f"{text}; with memory it is {words[0]} at the low end of both, {words[1]} at the high end."


def _memory(one: dict[str, Any]) -> bool:
    return bool(one["spiking"]["memory"]["high"])


def _lead(report: dict[str, Any]) -> str:
    estimates = report["estimates"]
    cheaper = [one["profile"] for one in estimates if one["spiking"]["total"] < one["dense_twin"]]
    counts = report["counts"]
    text = (
        f"For one image, the spiking branch performs {counts['synaptic_operations'] / counts['images']:,.0f} synaptic "
        f"operations. One pass of the ANN of the same shape performs {counts['dense_macs']:,} multiply-accumulates. "
        f"The ratio is {counts['operations_per_mac']:.3g}. "
    )
    names = f" ({', '.join(cheaper)})" if cheaper else ""
    text += (
        "The hardware decides which of them is cheaper. With arithmetic and routing alone, the spiking branch is "
        f"cheaper under {len(cheaper) or 'none'} of the {len(estimates)} profiles{names}."
    )
    remembered = [one for one in estimates if _memory(one)]
    if remembered:
        wins = sum(
            one["spiking"]["total_with_memory"]["high"] < one["dense_twin_with_memory"]["high"] for one in remembered
        )
        text += (
            f" With the high end of memory traffic on both sides, it is cheaper under {wins or 'none'} of the "
            f"{len(remembered)} profiles that have memory levels."
        )
    warnings = (f"Warning: {warning}." for warning in report.get("warnings", ()))
    return "".join(f"<p>{escape(part)}</p>" for part in (text, *warnings))


def _counts(report: dict[str, Any]) -> str:
    counts = report["counts"]
    n = counts["images"]
    head = [
        "layer",
        "neurons",
        "weights",
        "spikes in",
        "spikes out",
        "firing rate",
        "95th pct.",
        "silent",
        "saturated",
        "synaptic operations",
        "membrane updates",
        "dense MACs",
        "with padding",
    ]
    rows = []
    for layer in counts["layers"]:
        rates = layer["rates"]
        rows.append(
            [
                layer["name"],
                number(layer["neurons"]),
                number(layer["weights"]),
                number(layer["input_spikes"] / n),
                number(layer["spikes"] / n),
                f"{rates['mean']:.3f}",
                f"{rates['p95']:.3f}",
                f"{rates['silent']:.1%}",
                f"{rates['saturated']:.1%}",
                number(layer["synaptic_operations"] / n),
                number(layer["membrane_updates"] / n),
                number(layer["dense_macs"]),
                number(layer["dense_macs_padded"]),
            ]
        )
    rows.append(
        [
            "all",
            number(counts["neurons"]),
            number(counts["weights"]),
            number(counts["input_spikes"] / n),
            number(counts["spikes"] / n),
            "",
            "",
            "",
            "",
            number(counts["synaptic_operations"] / n),
            number(counts["membrane_updates"] / n),
            number(counts["dense_macs"]),
            number(counts["dense_macs_padded"]),
        ]
    )
    size = counts["bytes"]
    text = (
        f"{'One image' if n == 1 else f'Mean of {n:,} images, each'} from a reset state, T = {counts['steps']}. "
        "Firing rate: spikes for each neuron and step. Silent: share of neurons that never fired on any of the images. "
        "Saturated: share of neurons that fired in more than 90 % of the steps. "
        "The row “all” counts the spikes of the sampler as “spikes in”. "
        f"In 32 bits the weights take {memory_size(size['weights'])}, the membranes "
        f"{memory_size(size['state'])}; the spikes of an image take {memory_size(size['spikes_as_bitmap'])} as a "
        f"bitmap or {memory_size(size['spikes_as_events'])} as addresses of 32 bits."
    )
    bars = [(layer["name"], layer["rates"]["mean"], layer["rates"]["p95"]) for layer in counts["layers"]]
    chart = rate_bars(bars, "Firing rate of each layer")
    return (
        f"<p>{escape(text)}</p>{table(head, rows, total=True)}"
        f"<figure>{chart}<figcaption>Firing rate of each layer, mean over its neurons.</figcaption></figure>"
    )


def _overview(report: dict[str, Any]) -> str:
    head = [
        "profile",
        "synapses",
        "neurons",
        "routing",
        "spiking branch",
        "ANN of the same shape",
        "the same ANN in int8",
        "spiking branch with memory",
        "ANN with memory",
        "concrete encoder",
    ]
    rows = []
    for one in report["estimates"]:
        spiking = one["spiking"]
        memory = _memory(one)
        rows.append(
            [
                one["profile"],
                *(energy(spiking[key]) for key, _ in PARTS),
                energy(spiking["total"]),
                energy(one["dense_twin"]),
                energy(one["int8_twin"]),
                interval(spiking["total_with_memory"]) if memory else "included",
                interval(one["dense_twin_with_memory"]) if memory else "included",
                energy(one["artificial"].get("concrete_encoder", 0.0)),
            ]
        )
    return table(head, rows)


def _card(one: dict[str, Any]) -> str:
    spiking, memory = one["spiking"], _memory(one)

    def row(label: str, color: str, value: float, bounds: dict[str, float]) -> Range:
        low, high = (bounds["low"], bounds["high"]) if memory else (None, None)
        return Range(label, color, value, low, high, note=energy(value))

    rows = [
        row("spiking branch", "spiking", spiking["total"], spiking["total_with_memory"]),
        row("ANN of the same shape, one pass", "twin", one["dense_twin"], one["dense_twin_with_memory"]),
        row("the same ANN in int8", "int8", one["int8_twin"], one["int8_twin_with_memory"]),
    ]
    for part, color in (("concrete_encoder", "concrete"), ("transformer", "transformer")):
        if part in one["artificial"]:
            label = "transformer, with a text" if part == "transformer" else "concrete encoder"
            rows.append(row(label, color, one["artificial"][part], one["artificial_with_memory"][part]))
    parts = [(label, key, spiking[key]) for key, label in PARTS if spiking[key]]
    split = [f"<p class='soft'>The spiking branch, {energy(spiking['total'])}:</p>{stacked(parts, 'Its parts')}"]
    key = [(color, label, False) for label, color, _ in parts]
    if memory:
        high = spiking["memory"]["high"]
        with_memory = [*parts, ("memory", "memory", high)]
        split.append(
            f"<p class='soft'>With memory at its high end, {energy(spiking['total'] + high)}:</p>"
            f"{stacked(with_memory, 'Its parts with memory')}"
        )
        key.append(("memory", "memory", False))
    return (
        f"<article class='card'><h3>{escape(one['profile'])}</h3><p class='of'>{escape(one['title'])}</p>"
        f"<p class='verdict'>{escape(verdict(one))}</p>"
        f"{ranges(rows, MICROJOULE, 'µJ an image, estimate', 'Energy of an image under ' + one['profile'])}"
        f"{''.join(split)}{legend(key)}<p class='soft'>{escape(_break_even(one))}</p></article>"
    )


def _break_even(one: dict[str, Any]) -> str:
    if one["execution"] == "dense":
        return "This hardware computes every tap at every step: the energy depends on T, not on the firing rate."
    text = ""
    if one["break_even_spikes"] is not None:
        text = (
            f"Break-even of synapses and their routing alone: {one['break_even_spikes']:.3g} spikes for each input and "
            f"image; counted: {one['counted_spikes']:.3g}. "
        )
    for key, where in (
        ("break_even_rate", "With neurons"),
        ("break_even_rate_with_memory", "With the high end of memory"),
    ):
        if key.endswith("memory") and not _memory(one):
            continue
        found = one[key]
        result = {
            "below": f"cheaper below an input rate of {found['rate'] or 0:.3g}",
            "never": "never cheaper, since its neurons alone cost more than the ANN",
            "always": "cheaper at every input rate",
        }[found["verdict"]]
        text += f"{where}: {result}. "
    return f"{text}Counted input rate: {one['counted_rate']:.3g} spikes for each input and step."


def _curve(one: dict[str, Any], curves: dict[str, Any]) -> str:
    memory = _memory(one)
    charts = []
    for axis, points, label, mark in (
        ("steps", curves["over_steps"], "steps T", (curves["over_steps"][-1]["steps"] / 2, "T counted")),
        ("rate", curves["over_rate"], "input rate: spikes for each input and step", (one["counted_rate"], "counted")),
    ):
        ends = [points[0][axis], points[-1][axis]]
        series = [
            Line("spiking branch", "spiking", [(p[axis], p["spiking"] / MICROJOULE) for p in points]),
            Line("ANN of the same shape", "twin", [(x, one["dense_twin"] / MICROJOULE) for x in ends]),
        ]
        if memory:
            high = one["dense_twin_with_memory"]["high"] / MICROJOULE
            series += [
                Line("with memory", "spiking", [(p[axis], p["high"] / MICROJOULE) for p in points], dashed=True),
                Line("ANN with memory", "twin", [(x, high) for x in ends], dashed=True),
            ]
        charts.append(lines(series, label, "µJ an image, estimate", f"Energy over {label}, {one['profile']}", mark))
    return f"<article class='card'><h3>{escape(one['profile'])}</h3>{''.join(charts)}</article>"


def _group(report: dict[str, Any]) -> str:
    group = report["group"]
    if group is None:
        return "<p>Only one image was given, so there is no group to count.</p>"
    head = ["", "spikes", "synaptic operations", "membrane updates"]
    groups = group["images"] // group["group_size"]
    rows = [
        [label, *(number(group[key][name] / groups) for name in ("spikes", "synaptic_operations", "membrane_updates"))]
        for label, key in (("membranes carried over", "carried"), ("reset at each image", "reset"))
    ]
    share = group["carried"]["synaptic_operations"] / (group["reset"]["synaptic_operations"] or 1) - 1
    text = (
        f"A group of φ = {group['group_size']} images on one time axis of φ·T steps, mean of {groups} "
        f"{'group' if groups == 1 else 'groups'} ({group['images']} images, {group['how']}). With membranes "
        f"carried over from image to image, there are {abs(share):.2%} {'more' if share > 0 else 'fewer'} synaptic "
        "operations than with the same images from a reset state."
    )
    return f"<p>{escape(text)}</p>{table(head, rows)}"


def _artificial(report: dict[str, Any]) -> str:
    parts = report["artificial"]
    head = ["", *(part.replace("_", " ") for part in parts), "all"]
    rows = []
    for label, key in (("MACs", "macs"), ("weights", "weights")):
        numbers = [found[key] for found in parts.values()]
        rows.append([label, *map(number, (*numbers, sum(numbers)))])
    for one in report["estimates"]:
        values = [one["artificial"][part] for part in parts]
        rows.append([one["profile"], *map(energy, (*values, sum(values)))])
    text = (
        f"For one image and one text of {report['model']['text_tokens']} tokens: arithmetic alone, with taps "
        "on padding and the products of attention. The collector is counted dense, with all its inputs, zeros too."
    )
    return f"<p>{escape(text)}</p>{table(head, rows)}"


def _sources(report: dict[str, Any]) -> str:
    found = []
    for one in report["estimates"]:
        rows = [
            [
                escape(name.replace("_", " ")),
                f"{constant['value']:g} {escape(constant['unit'])}",
                str(constant["year"]),
                f"<td class='words'>{escape(constant['source'])}</td>",
            ]
            for name, constant in one["constants"].items()
        ]
        body = "".join(
            f"<tr><td>{name}</td><td>{value}</td><td>{year}</td>{source}</tr>" for name, value, year, source in rows
        )
        assumptions = "".join(f"<li>{escape(sentence)}</li>" for sentence in one["assumptions"])
        bits = ", ".join(f"{name} {width}" for name, width in one["bits"].items())
        found.append(
            f"<details open><summary>{escape(one['profile'])}: {escape(one['title'])}</summary>"
            f"<p class='soft'>Model {escape(one['model'])}; data: {escape(one['data'])}; bits: {escape(bits)}; dense "
            f"parts on: {escape(one['dense_title'])}.</p>"
            "<div class='wide sources'><table><thead><tr><th>constant</th><th>value</th><th>year</th>"
            f"<th class='words'>source</th></tr></thead><tbody>{body}</tbody></table></div>"
            f"<ul>{assumptions}</ul></details>"
        )
    return "".join(found)
