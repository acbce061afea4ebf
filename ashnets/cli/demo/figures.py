"""The figures of the demo, as PNG bytes."""

from __future__ import annotations

import textwrap

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage

from ashnets.cli.demo.gallery import Ranking
from ashnets.figures import COLORS, RIGHT, SOFT, png
from ashnets.files import JsonObject
from ashnets.ties import best

SHOWN_ITEMS, SHOWN_SENTENCES = 5, 3
RASTER_NEURONS = 80
SMALL: JsonObject = {"fontsize": 7.5, "color": SOFT}
BAND = 30  # neurons of a layer in the small raster


def contact_sheet(ranking: Ranking, queries: list[int]) -> bytes:
    """Sentences with their five best images, and images with their three best sentences; correct results in green."""
    figure = Figure(figsize=(15, 1.45 * len(queries) + 0.9), dpi=100)
    figure.text(
        0.5,
        0.004,
        f"{len(ranking.gallery)} images, ranked by {ranking.best}; random queries; correct results in green",
        ha="center",
        va="bottom",
        fontsize=9,
        color=SOFT,
    )
    left, right = figure.subfigures(1, 2, width_ratios=(8, 7), wspace=0, squeeze=False)[0]
    _sentences_to_images(left, ranking, queries)
    _images_to_sentences(right, ranking, queries)
    return png(figure)


def _sentences_to_images(figure: SubFigure, ranking: Ranking, queries: list[int]) -> None:
    figure.suptitle("Sentence → its five best images", y=0.985, fontsize=13, weight="bold")
    order, places = _order(ranking, "text_to_image", SHOWN_ITEMS)
    grid = figure.subplots(
        len(queries),
        1 + SHOWN_ITEMS,
        squeeze=False,
        width_ratios=(2.4, *[1] * SHOWN_ITEMS),
        gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.95, "bottom": 0.03, "wspace": 0.12, "hspace": 0.12},
    )
    for row, query in zip(grid, queries, strict=True):
        _words(row[0], f"“{ranking.sentences[query]}”", 24)
        row[0].text(0, 0.02, f"{_kind(ranking, query)}; correct image at rank {places[query]}", **SMALL)
        for axes, item in zip(row[1:], order[query], strict=True):
            _image(axes, ranking, item, item in ranking.gold[query])


def _images_to_sentences(figure: SubFigure, ranking: Ranking, queries: list[int]) -> None:
    figure.suptitle("Image → its three best sentences", y=0.985, fontsize=13, weight="bold")
    order, places = _order(ranking, "image_to_text", SHOWN_SENTENCES)
    grid = figure.subplots(
        len(queries),
        2,
        squeeze=False,
        width_ratios=(1, 5),
        gridspec_kw={"left": 0.04, "right": 0.98, "top": 0.95, "bottom": 0.03, "wspace": 0.04, "hspace": 0.12},
    )
    for (left, right), query in zip(grid, queries, strict=True):
        _image(left, ranking, query)
        right.axis("off")
        for place, item in enumerate(order[query]):
            hit = item in ranking.gold[query]
            text = textwrap.shorten(ranking.sentences[item], 62, placeholder=" …")
            right.text(
                0,
                0.78 - 0.26 * place,
                f"{place + 1}.  {text}",
                fontsize=10.5,
                va="center",
                parse_math=False,
                color=RIGHT if hit else matplotlib.rcParams["text.color"],
                weight="bold" if hit else "normal",
            )
        right.text(0, 0.02, f"{_kind(ranking, query)}; correct sentence at rank {places[query]}", **SMALL)


def spike_raster(ranking: Ranking, spikes: dict[str, torch.Tensor], shown: list[int]) -> bytes:
    """Spikes of every layer while images are shown one after another, and the firing rate of each layer.

    Args:
        ranking: for the images and the rates over the whole gallery.
        spikes: layer → (T, B, C, h, w) of the images ``shown``, each from a reset state.
        shown: indices of the B images.
    """
    figure = Figure(figsize=(13, 1.5 + 1.45 * len(spikes)), dpi=100)
    steps = next(iter(spikes.values())).shape[0]
    grid = figure.add_gridspec(
        1 + len(spikes),
        2,
        width_ratios=(5, 1.1),
        height_ratios=(0.9, *[1] * len(spikes)),
        left=0.08,
        right=0.98,
        top=0.93,
        bottom=0.07,
        wspace=0.12,
        hspace=0.15,
    )
    figure.suptitle(
        f"The spiking branch: {len(shown)} images, {steps} time steps each, starting from the reset state", fontsize=13
    )
    images = grid[0, 0].subgridspec(1, len(shown), wspace=0.1)
    for i, index in enumerate(shown):
        _image(figure.add_subplot(images[0, i]), ranking, index)
    for row, (name, fired) in enumerate(spikes.items(), start=1):
        axes = figure.add_subplot(grid[row, 0])
        flat = fired.flatten(2)  # (T, B, neurons)
        neurons = flat.shape[2]
        picked = torch.linspace(0, neurons - 1, min(neurons, RASTER_NEURONS)).long()
        sequence = flat[:, :, picked].transpose(0, 1).flatten(0, 1)  # (B·T, picked)
        time, neuron = sequence.nonzero(as_tuple=True)
        color = COLORS[(row - 1) % len(COLORS)]
        axes.scatter(time.numpy() + 0.5, neuron.numpy(), marker="|", s=14, linewidths=1.3, color=color)
        for i in range(1, len(shown)):
            axes.axvline(i * steps, color=SOFT, linewidth=0.8)
        axes.set(xlim=(0, steps * len(shown)), ylim=(-2, len(picked) + 1), yticks=[])
        axes.set_ylabel(f"{name}\n{len(picked)} of {neurons}", fontsize=9)
        axes.tick_params(labelbottom=row == len(spikes))
        if row == len(spikes):
            axes.set_xlabel("step")
    bars = figure.add_subplot(grid[1:, 1])
    rates = [100 * float(ranking.rates[name].mean()) for name in spikes]
    places = range(len(rates))
    bars.barh(places, rates, color=[COLORS[i % len(COLORS)] for i in places], height=0.55)
    for place, rate in zip(places, rates, strict=True):
        bars.text(rate, place, f" {rate:.1f} %", va="center", fontsize=9)
    bars.set(yticks=[], ylim=(len(rates) - 0.5, -0.5), xlim=(0, 1.45 * max(*rates, 1e-6)))
    bars.set_xlabel("firing rate: spikes per\nneuron and time step")
    bars.set_title(f"all {len(ranking.gallery)} images", fontsize=10)
    return png(figure)


def at_work(ranking: Ranking, spikes: dict[str, torch.Tensor], queries: list[int], about: dict[str, str]) -> bytes:
    """One image of the whole: sentences with their best images, and the spikes and summary ratio of one image.

    Args:
        ranking: the gallery.
        spikes: layer → (T, 1, C, h, w) of the first query's image.
        queries: indices of the sentences.
        about: texts for the file.
    """
    figure = Figure(figsize=(10, 1.3 * len(queries) + 3), dpi=120)
    above, below = figure.subfigures(2, 1, height_ratios=(1.3 * len(queries), 3), squeeze=False)[:, 0]
    order, _ = _order(ranking, "text_to_image", SHOWN_ITEMS)
    above.suptitle(f"A sentence → the five best of {len(ranking.gallery)} images", y=0.985, fontsize=13)
    grid = above.subplots(
        len(queries),
        1 + SHOWN_ITEMS,
        squeeze=False,
        width_ratios=(2.2, *[1] * SHOWN_ITEMS),
        gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.88, "bottom": 0.02, "wspace": 0.1, "hspace": 0.1},
    )
    for row, query in zip(grid, queries, strict=True):
        _words(row[0], f"“{ranking.sentences[query]}”", 24, fontsize=12.5)
        for axes, item in zip(row[1:], order[query], strict=True):
            _image(axes, ranking, item, item in ranking.gold[query])
    steps = next(iter(spikes.values())).shape[0]
    image, raster, gate = below.subplots(
        1,
        3,
        width_ratios=(1, 2.6, 1),
        gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.86, "bottom": 0.18, "wspace": 0.35},
    )
    _image(image, ranking, queries[0])
    image.set_title("an image")
    for layer, (name, fired) in enumerate(spikes.items()):
        flat = fired.flatten(1)  # (T, neurons)
        picked = torch.linspace(0, flat.shape[1] - 1, BAND).long()
        time, neuron = flat[:, picked].nonzero(as_tuple=True)
        color = COLORS[layer % len(COLORS)]
        raster.scatter(time.numpy() + 0.5, layer * (BAND + 8) + neuron.numpy(), marker="|", s=9, color=color)
        raster.text(-0.15, layer * (BAND + 8) + BAND / 2, name, ha="right", va="center", fontsize=10, color=color)
    raster.set(xlim=(0, steps), ylim=(len(spikes) * (BAND + 8) - 4, -4), yticks=[], xlabel="time step")
    raster.set_title(f"its spikes, {BAND} neurons a layer")
    side = int(ranking.summary_ratio.shape[1] ** 0.5)
    ratios = ranking.summary_ratio[queries[0]].view(side, side).float()
    _overlay(gate, ranking, queries[0], ratios.numpy(), float(ratios.min()), float(ratios.max()))
    gate.set_title("where they enter (SR)")
    return png(figure, about)


def summary_ratio_map(ranking: Ranking, shown: list[int]) -> bytes:
    """Where the spiking feature is gated into the tokens (eq. 7), as an overlay on each image."""
    grid = int(ranking.summary_ratio.shape[1] ** 0.5)
    maps = [ranking.summary_ratio[i].view(grid, grid).float().numpy() for i in shown]
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)
    figure = Figure(figsize=(1.9 * len(shown) + 1, 4.6), dpi=100)
    figure.suptitle("Summary ratio SR = σ(φ(F_CNN)): how much of the spiking feature each token gets", fontsize=12)
    axes = figure.subplots(
        2,
        len(shown),
        squeeze=False,
        gridspec_kw={"left": 0.02, "right": 0.9, "top": 0.88, "bottom": 0.05, "wspace": 0.06},
    )
    for above, below, index, ratios in zip(axes[0], axes[1], shown, maps, strict=True):
        _image(above, ranking, index)
        heat = _overlay(below, ranking, index, ratios, low, high)
        below.set_xlabel(f"mean {ratios.mean():.2f}", fontsize=9)
    bar = figure.add_axes((0.92, 0.06, 0.015, 0.38))
    figure.colorbar(heat, cax=bar)
    return png(figure)


def _order(ranking: Ranking, direction: str, shown: int) -> tuple[list[list[int]], list[int]]:
    """The best items of each query, and the rank of its right one."""
    order = best(ranking.scores[ranking.best][direction], shown).tolist()
    return order, ranking.ranks(ranking.best, direction).tolist()


def _kind(ranking: Ranking, index: int) -> str:
    return "new concept" if ranking.gallery[index]["split"] == "new" else "seen concept, unseen drawing"


def _image(axes: Axes, ranking: Ranking, index: int, right: bool = False) -> None:
    axes.imshow(ranking.image(index))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=RIGHT if right else SOFT, linewidth=4 if right else 0.6)


def _overlay(axes: Axes, ranking: Ranking, index: int, ratios: np.ndarray, low: float, high: float) -> AxesImage:
    """An image in gray under its summary ratio, (h, w)."""
    image = ranking.image(index)
    extent = (0, image.width, image.height, 0)
    axes.imshow(image.convert("L"), cmap="gray", vmin=-150, vmax=255, extent=extent)
    axes.set(xticks=[], yticks=[])
    return axes.imshow(ratios, cmap="magma", vmin=low, vmax=high, alpha=0.65, extent=extent)


def _words(axes: Axes, text: str, width: int, fontsize: float = 10.5) -> None:
    axes.axis("off")
    axes.text(0, 0.55, textwrap.fill(text, width), fontsize=fontsize, va="center", parse_math=False)
