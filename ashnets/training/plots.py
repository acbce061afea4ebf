"""Plots of a run from its two logs, drawn without a display."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ashnets.figures import COLORS, SOFT, png, style
from ashnets.files import JsonObject, write_atomically
from ashnets.training.journal import EPOCHS, STEPS, read_records

LOSSES = {
    "loss": "weighted sum",
    "itc": "ITC: image-text contrast",
    "itm": "ITM: image-text matching",
    "mlm": "MLM: masked words",
    "mvm": "MVM: masked concepts",
    "stua": "STUA: spikes and text",
    "distill": "distillation: spikes and concrete tokens",
}
WAYS = {"text_to_image": "text → image", "image_to_text": "image → text"}
RATES = {"rate_": "at inference, weights as published", "training_rate_": "in training mode"}
BANDS = ("#ffffff", "#eef2f7")
STEP = "optimizer step"


class RunLog:
    """The logs of a run, as records sorted by optimizer step."""

    def __init__(self, folder: Path) -> None:
        self.steps = [r for r in read_records(folder / STEPS) if r.get("kind") is None and _finite(r.get("step"))]
        self.epochs = [r for r in read_records(folder / EPOCHS) if _finite(r.get("step"))]
        self.steps.sort(key=lambda r: r["step"])
        self.epochs.sort(key=lambda r: r["step"])

    def fields(self, prefix: str = "") -> list[str]:
        """Numeric fields that start with ``prefix`` and are finite somewhere, in the order of their first record."""
        records = self.epochs + self.steps
        return list(dict.fromkeys(k for r in records for k, v in r.items() if k.startswith(prefix) and _finite(v)))

    def phases(self) -> list[tuple[str, float, float]]:
        """(name, from, to) of each phase, in steps."""
        records = sorted((r for r in self.steps + self.epochs if r.get("phase")), key=lambda r: r["step"])
        if not records:
            return []
        first = records[0]
        began = 0 if first.get("epoch") == 1 else min(r["step"] for r in self.steps + self.epochs)
        spans = [(first["phase"], began, first["step"])]
        for record in records:
            name, begin, end = spans[-1]
            if record["phase"] == name:
                spans[-1] = (name, begin, record["step"])
            else:
                spans.append((record["phase"], end, record["step"]))
        return spans


def plot_run(folder: Path) -> list[Path]:
    """Draw every plot for which the logs of a run have data.

    Args:
        folder: of the run; its ``log.jsonl`` and ``steps.jsonl`` are read, either may be missing.

    Returns:
        The files written under ``folder/plots/``: ``losses.png``, ``learning_rates.png``,
        ``firing_rates.png``, ``summary_ratio.png``, ``spiking_branch.png``, ``gradients.png``, ``validation.png``.
    """
    run = RunLog(Path(folder))
    drawings: dict[str, Callable[[RunLog], Figure | None]] = {
        "losses": _losses,
        "learning_rates": _learning_rates,
        "firing_rates": _firing_rates,
        "summary_ratio": _summary_ratio,
        "spiking_branch": _spiking_branch,
        "gradients": _gradients,
        "validation": _validation,
    }
    written = []
    for name, draw in drawings.items():
        with style():
            figure = draw(run)
            if figure is not None:
                written.append(write_atomically(Path(folder) / "plots" / f"{name}.png", png(figure)))
    return written


def _losses(run: RunLog) -> Figure | None:
    present = [name for name in LOSSES if name in run.fields()]
    if not present:
        return None
    figure, panels = _panels(
        "Training losses: logged steps (pale), means at the end of each epoch (dots)", len(present)
    )
    for axes, name in zip(panels, present, strict=True):
        _shade(axes, run)
        _draw(axes, run, name, COLORS[list(LOSSES).index(name)])
        axes.set_title(LOSSES[name], fontsize=10, pad=16)
        axes.set(xlabel=STEP, ylabel=f"{name} (nats)" if name != "loss" else "loss (weighted nats)")
    return figure


def _learning_rates(run: RunLog) -> Figure | None:
    drawn = _together(run, "lr_", "Learning rates")
    if drawn is None:
        return None
    figure, axes = drawn
    axes.set(xlabel=STEP, ylabel="learning rate (log scale)")
    keys = run.fields("lr_")
    rates = [r[k] for r in run.steps + run.epochs for k in keys if _finite(r.get(k)) and r[k] > 0]
    if rates:
        # A cosine ends at zero: rates below a ten-thousandth of the largest one are not shown.
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(max(min(rates) / 2, max(rates) / 1e4), 2 * max(rates))
    return figure


def _firing_rates(run: RunLog) -> Figure | None:
    present = {prefix: title for prefix, title in RATES.items() if run.fields(prefix)}
    if not present:
        return None
    figure, panels = _panels("Firing rates of the spiking layers", len(present))
    for axes, (prefix, title) in zip(panels, present.items(), strict=True):
        _draw_all(axes, run, prefix, scale=100.0)
        axes.set_title(title, fontsize=10, pad=16)
        axes.set(xlabel=STEP, ylabel="neurons that fire at a time step (%)", ylim=(0, None))
    return figure


def _summary_ratio(run: RunLog) -> Figure | None:
    drawn = _together(
        run, "summary_ratio", "Summary ratio: how much of the spiking feature is gated into a visual token"
    )
    if drawn is None:
        return None
    figure, axes = drawn
    axes.set(xlabel=STEP, ylabel="mean SR (share, 0 to 1)")
    return figure


def _spiking_branch(run: RunLog) -> Figure | None:
    """Gauges of the branch (:mod:`ashnets.training.gauges`), a panel each; the recalls share one."""
    titles = {
        "branch_ratio": "scale of the spikes in the tokens: ‖SR·F_SNN‖ / ‖F_CNN‖",
        "branch_concepts": "effective number of concepts of a token",
        "branch_moved": "movement of the collector: ‖C − C₀‖ / ‖C₀‖",
        "branch_effect": "effect of another image's spikes: 1 − cosine",
    }
    present = [name for name in titles if name in run.fields()]
    recalls = run.fields("branch_R@1")
    if not present and not recalls:
        return None
    figure, panels = _panels("The spiking branch", len(present) + bool(recalls))
    for axes, name in zip(panels, present, strict=False):
        _shade(axes, run)
        _draw(axes, run, name, COLORS[0])
        axes.set_title(titles[name], fontsize=10, pad=16)
        axes.set(xlabel=STEP, ylim=(0, None))
    if recalls:
        _shade(panels[-1], run)
        for i, key in enumerate(recalls):
            label = key.removeprefix("branch_R@1_").replace("_", " ")
            _draw(panels[-1], run, key, COLORS[i % len(COLORS)], label, 100.0)
        panels[-1].set_title("validation, text → image", fontsize=10, pad=16)
        panels[-1].set(xlabel=STEP, ylabel="R@1 (%)", ylim=(0, None))
        panels[-1].legend(fontsize=9)
    return figure


def _gradients(run: RunLog) -> Figure | None:
    """Gradient norms: a panel for each objective, a curve for each part of the model."""
    names = dict.fromkeys(key.removeprefix("grad_").partition("_")[0] for key in run.fields("grad_"))
    if not names:
        return None
    figure, panels = _panels("Gradient norms: which objective trains which part", len(names))
    for axes, name in zip(panels, names, strict=True):
        _draw_all(axes, run, f"grad_{name}_")
        axes.set_title(LOSSES.get(name, name), fontsize=10, pad=16)
        axes.set(xlabel=STEP, ylabel="norm (log scale)")
        axes.set_yscale("log", nonpositive="mask")
    return figure


def _validation(run: RunLog) -> Figure | None:
    """Recall@K: one panel per direction; every other value has its own panel."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for key in run.fields("valid_"):
        found = re.fullmatch(r"valid_(.+)_(R@\d+)", key)
        if found:
            panels.setdefault(found[1], []).append((key, found[2]))
        else:
            panels[key] = [(key, "")]
    if not panels:
        return None
    figure, drawn = _panels("Validation after each epoch", len(panels))
    for axes, (name, lines) in zip(drawn, panels.items(), strict=True):
        _shade(axes, run)
        recall = bool(lines[0][1])
        for i, (key, label) in enumerate(lines):
            _draw(axes, run, key, COLORS[i % len(COLORS)], label, 100.0 if recall else 1.0)
        axes.set_title(WAYS.get(name, name.removeprefix("valid_").replace("_", " ")), fontsize=10, pad=16)
        axes.set(xlabel=STEP, ylabel="recall (%)" if recall else name.removeprefix("valid_"))
        if recall:
            axes.set_ylim(0, 100)
            axes.legend(fontsize=9)
    return figure


def _together(run: RunLog, prefix: str, title: str) -> tuple[Figure, Axes] | None:
    """All values with one prefix in one panel, with a legend if there are several."""
    if not run.fields(prefix):
        return None
    figure, (axes,) = _panels(title, 1)
    _draw_all(axes, run, prefix)
    return figure, axes


def _draw_all(axes: Axes, run: RunLog, prefix: str, scale: float = 1.0) -> None:
    """A curve for each value with one prefix."""
    keys = run.fields(prefix)
    _shade(axes, run)
    for i, key in enumerate(keys):
        _draw(axes, run, key, COLORS[i % len(COLORS)], key.removeprefix(prefix), scale)
    if len(keys) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)


def _panels(title: str, number: int) -> tuple[Figure, list[Axes]]:
    columns = min(number, 3 if number > 4 else 2)
    rows = -(-number // columns)
    figure = Figure(figsize=(9.0 if columns == 1 else 5.0 * columns, 0.6 + 3.6 * rows), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=12)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[number:]:
        axes.set_visible(False)
    for axes in grid[:number]:
        axes.grid(True)
        axes.margins(x=0.01)
    return figure, list(grid[:number])


def _shade(axes: Axes, run: RunLog) -> None:
    for i, (name, begin, end) in enumerate(run.phases()):
        axes.axvspan(begin, end, color=BANDS[i % 2], zorder=0, linewidth=0)
        if i:
            axes.axvline(begin, color=SOFT, linewidth=0.8, linestyle=":", zorder=1)
        axes.annotate(
            name,
            (begin, 1),
            xycoords=("data", "axes fraction"),
            xytext=(1, 3),
            textcoords="offset points",
            va="bottom",
            fontsize=8,
            color=SOFT,
            parse_math=False,
        )


def _draw(axes: Axes, run: RunLog, key: str, color: str, label: str = "", scale: float = 1.0) -> None:
    """Logged steps are drawn pale behind the epochs; if only one of the two exists, it is drawn in full."""
    style: JsonObject = {"color": color, "label": label or None}
    x, y = _series(run.epochs, key)
    epochs = bool(np.isfinite(y).any())
    if epochs:
        axes.plot(x, scale * y, linewidth=1.4, marker="o", markersize=3.5, zorder=3, **style)
        style = {"color": color, "alpha": 0.4}
    x, y = _series(run.steps, key)
    if np.isfinite(y).any():
        axes.plot(x, scale * y, linewidth=0.8 if epochs else 1.4, marker="." if len(x) == 1 else "", zorder=2, **style)


def _series(records: list[JsonObject], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the records that have ``key``; a value that is not a number becomes a gap."""
    found = [(r["step"], r[key] if _finite(r[key]) else np.nan) for r in records if key in r]
    x, y = np.array(found, dtype=float).reshape(-1, 2).T
    return x, y


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
