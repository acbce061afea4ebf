"""The figure of the spiking branch of one image, as PNG bytes."""

from __future__ import annotations

import io

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ashnets.web_app.spiking import SpikingView

RASTER_NEURONS = 120  # of a layer, spread evenly; more would be a gray area
COLORS = ("#4477aa", "#228833", "#aa3377", "#ee6677", "#997700", "#666666")


def spiking_figure(view: SpikingView, image: Image.Image) -> bytes:
    """The image, its summary ratio as an overlay, and the spikes of every layer over the steps.

    Args:
        image: as the model sees it, square.
    """
    rows = max(2, len(view.spikes))
    figure = Figure(figsize=(11, 0.9 + 1.25 * rows), dpi=100, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2.1), squeeze=False)[0]
    above, below = left.subplots(2, 1)
    above.imshow(image)
    above.set(xticks=[], yticks=[], title="the image as the model sees it")
    _overlay(below, view.summary_ratio, image)
    for i, (axes, (name, spikes)) in enumerate(
        zip(right.subplots(len(view.spikes), 1, sharex=True, squeeze=False)[:, 0], view.spikes.items(), strict=True)
    ):
        _raster(axes, name, spikes, view.rates[name], COLORS[i % len(COLORS)])
    axes.set_xlabel("time step")
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    return data.getvalue()


def _overlay(axes: Axes, ratio: torch.Tensor, image: Image.Image) -> None:
    extent = (0.0, float(image.width), float(image.height), 0.0)
    axes.imshow(image.convert("L"), cmap="gray", vmin=-150, vmax=255, extent=extent)
    heat = axes.imshow(ratio.numpy(), cmap="magma", alpha=0.65, extent=extent)
    axes.set(xticks=[], yticks=[], title=f"summary ratio, mean {float(ratio.mean()):.2f}")
    axes.figure.colorbar(heat, ax=axes, fraction=0.046)


def _raster(axes: Axes, name: str, spikes: torch.Tensor, rate: float, color: str) -> None:
    flat = spikes.flatten(1)  # (T, neurons)
    steps, neurons = flat.shape
    shown = torch.linspace(0, neurons - 1, min(neurons, RASTER_NEURONS)).long()
    time, neuron = flat[:, shown].nonzero(as_tuple=True)
    axes.scatter(time.numpy() + 1, neuron.numpy(), marker="|", s=12, linewidths=1.4, color=color)
    axes.set(xlim=(0.5, steps + 0.5), ylim=(-2, len(shown) + 1), yticks=[], xticks=range(1, steps + 1))
    axes.set_ylabel(f"{name}\n{len(shown)} of {neurons:,}", fontsize=9)
    axes.set_title(f"{rate:.1%} of the neurons fire at a step", fontsize=9, loc="right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
