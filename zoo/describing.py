"""Describe a model: architecture, parts, parameters, MACs and weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from ashnets.files import JsonObject
from ashnets.terminal import table
from ashnets.zoo.numbers import RESULT, results_of
from ashnets.zoo.registry import Entry, Weights, config_of, entry, untrained
from ashnets.zoo.sizes import Sizes, counted

if TYPE_CHECKING:
    from ashnets.configuration import AshNetsConfig

SUMMARY_RATIO = {
    "trainable": "with a spiking encoder, trainable summary ratio",
    "fixed": "with a spiking encoder, summary ratio fixed at 1",
    "ann": "without a spiking branch",
    "snn": "with a spiking encoder; only the spiking features are used",
}


@dataclass(frozen=True)
class Description:
    """Description of a model; see :meth:`to_text`.

    Attributes:
        symbols: T, φ, N, M1, M2, grid and image size.
        parameters, macs: part → number; MACs are dense, for one image, and for the spiking encoder one step.
        totals: parameters of the bare model, of the backbone with its ImageNet classifier, and MACs of all T steps.
        heads: task → parameters of the whole model with that head.
        weights: a sentence.
        results: the name of the file with all results.
        measured: the results, see `ashnets.zoo.numbers.results_of`.
    """

    name: str
    summary: str
    architecture: str
    variant: str
    symbols: JsonObject
    spiking_channels: list[int]
    parameters: dict[str, int]
    macs: dict[str, int]
    totals: dict[str, int | None]
    heads: dict[str, int]
    weights: str
    pretrained: bool
    tags: list[str]
    license: str
    training_data: str | None
    recipe: str | None
    results: str | None
    measured: list[dict[str, str]]
    configuration: JsonObject

    def to_dict(self) -> JsonObject:
        """All attributes, for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """A few lines for a terminal."""
        s = self.symbols
        lines = [
            self.name,
            f"  {self.summary} {self.variant}",
            "",
            f"Input      {s['image_size']} × {s['image_size']} px, {s['grid']} × {s['grid']} = N {s['N']} visual "
            f"tokens; text up to {s['max_text_length']} tokens",
            f"Widths     M1 {s['M1']}, M2 {s['M2'] if s['M2'] else 'none'}, {s['layers']} transformer layers",
        ]
        if self.spiking_channels:
            stack = " - ".join(map(str, [*self.spiking_channels, s["M2"] or s["M1"]]))
            lines.append(f"Spiking    T {s['T']} steps an image, groups of φ {s['φ']}, layers {stack}")
        lines += ["", f"Parameters {number(self.totals['parameters'])}"]
        lines += _table(self.parameters)
        if self.totals["backbone_with_classifier"]:
            lines.append(
                f"  The backbone with its ImageNet classifier, counted as in the paper: "
                f"{number(self.totals['backbone_with_classifier'])}"
            )
        lines += ["", "With a head"]
        lines += _table(self.heads)
        lines += ["", "Multiply-accumulates for one image (dense, padding counted)"]
        lines += _table(self.macs)
        if self.totals["spiking_macs"]:
            lines.append(
                f"  The abstract encoder over T = {s['T']} steps, if every input were a spike: "
                f"{number(self.totals['spiking_macs'])}"
            )
        lines += ["", f"Weights    {self.weights}", f"License    {self.license}"]
        for label, value in (("Trained on", self.training_data), ("Recipe", self.recipe)):
            if value:
                lines.append(f"{label:<10} {value}")
        if self.measured:
            lines += ["", "Results: mean and standard deviation over the seeds; zoo/results has all rows"]
            rows = [[row[key] for key in RESULT] for row in self.measured]
            lines += [
                f"  {line}" for line in table(RESULT, rows, [key in ("n", "seeds") for key in RESULT]).splitlines()
            ]
        return "\n".join(lines)


def describe(name: str) -> Description:
    """Describe ``name`` or ``name.tag``; nothing is downloaded and no weight is allocated.

        ashnets.describe("ashnets-tiny").to_text()

    Raises:
        UnknownModelError: no such model; the message gives the nearest names.
    """
    found = entry(name)
    described = _describe(config_of(found.name), found, counted().get(found.name))
    return replace(described, measured=results_of(found.name))


def describe_config(config: AshNetsConfig, architecture: str | None = None) -> Description:
    """Describe any configuration; it need not be in the registry.

    Args:
        config: of the model.
        architecture: the name of the registry entry that it comes from, if any; the weights of that entry are ignored.
    """
    return _describe(config, replace(entry(architecture), weights=None) if architecture else None, None)


def _describe(config: AshNetsConfig, found: Entry | None, counts: Sizes | None) -> Description:
    if counts is None:
        from ashnets.zoo.counting import count_sizes

        counts = count_sizes(config)
    spiking = config.has_spiking_branch
    weights = found.weights if found else None
    name = found.name if found else "a custom configuration"
    variant = SUMMARY_RATIO[config.summary_ratio]
    if spiking and not config.collector:
        variant += ", no collector"
    return Description(
        name=name if weights is None else f"{name}.{weights.tag}",
        summary=found.summary if found else config.backbone,
        architecture=found.architecture if found else config.backbone,
        variant=variant,
        symbols={
            "T": config.time_steps if spiking else None,
            "φ": config.group_size if spiking else None,
            "N": config.num_visual_tokens,
            "M1": config.hidden_size,
            "M2": config.num_concepts if spiking and config.collector else None,
            "grid": config.grid,
            "image_size": config.image_size,
            "max_text_length": config.max_text_length,
            "layers": config.num_hidden_layers,
        },
        spiking_channels=[*config.spiking_channels, *config.spiking_grid_channels] if spiking else [],
        parameters={part: size for part, size in counts.parameters.items() if size},
        macs={part: size for part, size in counts.macs.items() if size},
        totals={
            "parameters": counts.total,
            "backbone_with_classifier": counts.backbone_with_classifier,
            "spiking_macs": counts.spiking_macs if spiking else None,
        },
        heads=counts.heads,
        weights=_status(found.name, weights) if found else "not considered: this describes only the configuration",
        pretrained=weights is not None,
        tags=list(found.tags) if found else [],
        license=weights.license if weights else "Apache-2.0 (code and configuration)",
        training_data=weights.training_data if weights else None,
        recipe=weights.recipe.name if weights else None,
        results=weights.results.name if weights else None,
        measured=[],
        configuration=found.configuration if found else config.to_diff_dict(),
    )


def _status(name: str, weights: Weights | None) -> str:
    if weights is None:
        return untrained(name)
    checked = "the SHA-256 of every file is checked at loading"
    if weights.folder is None:
        return f"trained, tag {weights.tag!r}: {weights.repository} on the Hub at {weights.commit}, {checked}"
    files = [weights.folder / file for file in weights.sha256]
    size = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    return f"trained, tag {weights.tag!r}: in the package, {size:.1f} MB, {checked}"


def _table(rows: dict[str, int]) -> list[str]:
    width = max(map(len, rows))
    return [f"  {label:<{width}}  {number(value):>9}" for label, value in rows.items()]


def number(value: int | None) -> str:
    """A count in short form, such as 4.73 M."""
    if value is None:
        return "-"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return str(value)
