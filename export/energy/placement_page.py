"""The placement of a report: rows of its tables, for the terminal and the page, and the page's section."""

from __future__ import annotations

from html import escape
from typing import Any

from ashnets.export.energy.html_parts import duration, energy, legend, memory_size, number, table
from ashnets.export.energy.svg import COLORS, mesh


def cores_rows(placement: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What the input and each layer need of the chip."""
    head = ["on the chip", "cores", "a core holds", "memory", "without sharing", "axons in", "axons out"]
    rows = [
        [
            one["name"],
            number(one["cores"]),
            one["patch"],
            memory_size(one["synapse_bits_shared"] // 8) if one["synapse_bits_shared"] else "–",
            memory_size(one["synapse_bits_unshared"] // 8) if one["synapse_bits_unshared"] else "–",
            number(one["axons_in"]) if one["axons_in"] else "–",
            number(one["axons_out"]) if one["axons_out"] else "–",
        ]
        for one in placement["populations"]
    ]
    limits = placement["limits"]
    memory, axons_in, axons_out = (limits[name] for name in ("synapse_bits", "axons_in", "axons_out"))
    rows.append(
        [
            "limits",
            f"{placement['cores']} of {placement['cores_of_chip']}",
            f"{number(limits['neurons'])} neurons",
            memory_size(memory // 8) if memory and placement["shared_weights"] else "–",
            memory_size(memory // 8) if memory and not placement["shared_weights"] else "–",
            number(axons_in) if axons_in else "–",
            number(axons_out) if axons_out else "–",
        ]
    )
    return head, rows


def traffic_rows(placement: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Messages and hops of an image, by the layer that receives them."""
    head = ["to layer, an image", "spikes in", "messages", "hops", "network energy"]
    parts = [*placement["traffic"]["layers"], {"name": "all", **placement["traffic"]["total"]}]
    rows = [
        [
            one["name"],
            number(one["spikes"]),
            number(one["messages"]),
            number(one["hops_east_west"] + one["hops_north_south"]),
            energy(one["picojoules"]),
        ]
        for one in parts
    ]
    return head, rows


def latency_sentence(placement: dict[str, Any]) -> str:
    """Latency of a step and an image in words."""
    times = placement["latency"]
    return (
        f"Latency: {duration(times['step'])} a step (longest {duration(times['longest_step'])}), "
        f"{duration(times['image'])} an image of {times['steps']} steps (T, and one for each layer). The cores of "
        f"{times['busiest']} set the pace in most steps."
    )


def heading(placement: dict[str, Any]) -> str:
    """Where the encoder sits, in words."""
    return (
        f"{placement['title']}, mapping {placement['mapping']}: {placement['cores']} of {placement['cores_of_chip']} "
        f"cores on {placement['tiles']} of {placement['columns'] * placement['rows']} tiles."
    )


def placement_section(report: dict[str, Any]) -> str:
    """The section of the page."""
    found = report["placement"]
    if not found["fits"]:
        return f"<p>{escape(found['reason'])}</p><p>The routing of the profiles below is assumed, not counted.</p>"
    names = [one["name"] for one in found["populations"]]
    picture = mesh(
        found["mesh"], found["columns"], found["rows"], found["cores_per_tile"], names, "The mesh of the chip"
    )
    populations = enumerate(found["populations"])
    colors = legend([(f"p{i % COLORS}", f"{one['name']} ({one['cores']})", False) for i, one in populations])
    text = (
        f"{heading(found)} The memory of a core is the largest of the layer's cores: with each kernel stored once, and "
        "without sharing, with a weight for each synapse. An axon in is a source neuron that reaches the core, an axon "
        "out a core that one of its neurons reaches."
    )
    traffic = (
        "A spike is one message to each core that needs it; a hop is one link between neighboring tiles. These counts "
        f"are exact, for the same images. {latency_sentence(found)} It is the busiest core's time plus a barrier in "
        "each step, without congestion."
    )
    sources = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_value(one))}</td><td>{one['year']}</td>"
        f"<td class='words'>{escape(one['source'])}</td></tr>"
        for name, one in found["figures"].items()
    )
    assumptions = "".join(f"<li>{escape(sentence)}</li>" for sentence in found["assumptions"])
    return (
        f"<p>{escape(text)}</p><figure>{picture}{colors}<figcaption>Cores by layer (their number), in tiles of "
        f"{found['cores_per_tile']}.</figcaption></figure>{table(*cores_rows(found))}"
        f"<p>{escape(traffic)}</p>{table(*traffic_rows(found), total=True)}"
        f"<details><summary>Figures of {escape(found['title'])}</summary><div class='wide sources'><table><thead><tr>"
        "<th>figure</th><th>value</th><th>year</th><th class='words'>source</th></tr></thead>"
        f"<tbody>{sources}</tbody></table></div><ul>{assumptions}</ul></details>"
    )


def _value(one: dict[str, Any]) -> str:
    if "value" in one:
        return f"{one['value']:g} {one['unit']}"
    if "tiles" in one:
        return ", ".join(f"{tiles} tiles {time:g} {one['unit']}" for tiles, time in one["tiles"].items())
    return f"{one['columns']} × {one['rows']} tiles of {one['cores_per_tile']} cores"
