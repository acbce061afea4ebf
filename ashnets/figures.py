"""The style of all plots: colors that read on white and on black, thin axes, and images of a figure as bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLORS = ("#4b86c2", "#ee6677", "#2f9e44", "#ccbb44", "#c2569b", "#66ccee", "#777777")
RIGHT = "#1a9850"  # a correct result
SOFT = "#7a7a7a"  # notes, reference lines and frames, on any background


@dataclass(frozen=True)
class Theme:
    """Colors of text, background and grid."""

    ink: str
    paper: str
    grid: str


LIGHT = Theme(ink="#1f2328", paper="#ffffff", grid="#dddddd")
DARK = Theme(ink="#e6edf3", paper="#0d1117", grid="#30363d")
THEMES = {"light": LIGHT, "dark": DARK}


def style(theme: Theme = LIGHT) -> AbstractContextManager[None]:
    """A context in which figures are made and drawn in this style."""
    return matplotlib.rc_context(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": SOFT,
            "axes.facecolor": theme.paper,
            "axes.labelcolor": theme.ink,
            "axes.prop_cycle": f"cycler('color', {list(COLORS)})",
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.facecolor": theme.paper,
            "grid.color": theme.grid,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "savefig.facecolor": theme.paper,
            "svg.fonttype": "none",
            "svg.hashsalt": "ashnets",  # else an equal figure has other ids each time
            "text.color": theme.ink,
            "xtick.color": theme.ink,
            "ytick.color": theme.ink,
        }
    )


def png(figure: Figure, about: Mapping[str, str] | None = None) -> bytes:
    """The figure as PNG.

    Args:
        figure: drawn in the context of `style`.
        about: texts for the file, by keyword.
    """
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data, metadata=dict(about or {}))
    return data.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG, without a date."""
    data = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(data, metadata={"Date": None})
    return data.getvalue()
