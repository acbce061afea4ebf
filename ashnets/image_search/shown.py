"""The spikes of one image as numbers, as images and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from ashnets.evaluation.page import cards, image_tag, page, paragraph, table
from ashnets.figures import COLORS
from ashnets.files import JsonObject, Row

WITH_SPIKES, WITHOUT_SPIKES, SPIKES_ALONE = "with spikes", "without spikes", "spikes alone"
NEURONS = 80  # of a raster: as many lines as can be told apart
_SIDE = 480  # px, of images on the page


@dataclass(frozen=True, eq=False)
class Shown:
    """What the spiking branch makes of one image, from the reset state.

    Attributes:
        image: in RGB, in its own size.
        name: of its file.
        model: its name.
        spikes: layer → (T, neurons), bool.
        summary_ratio: (√N, √N), how much of the spiking feature each visual token gets (eq. 7).
        texts: ``with spikes``, ``without spikes`` (the concrete branch alone, if the model has one) and ``spikes
            alone`` → the nearest texts with their cosines, best first; empty if the model has no retrieval head. Spikes
            alone are the spiking feature times the summary ratio (eq. 9).
    """

    image: Image.Image
    name: str
    model: str
    spikes: dict[str, np.ndarray]
    summary_ratio: np.ndarray
    texts: dict[str, list[tuple[str, float]]]

    @property
    def steps(self) -> int:
        """T, the number of time steps."""
        return len(next(iter(self.spikes.values())))

    @property
    def rates(self) -> dict[str, float]:
        """Layer → spikes per neuron and time step."""
        return {layer: float(fired.mean()) for layer, fired in self.spikes.items()}

    def raster(self, layer: str, neurons: int = NEURONS) -> np.ndarray:
        """(lines, T), bool: the spikes of at most ``neurons`` neurons of a layer, evenly chosen."""
        fired = self.spikes[layer]
        chosen = np.linspace(0, fired.shape[1] - 1, min(neurons, fired.shape[1])).astype(int)
        return fired[:, chosen].T

    def raster_image(self, layer: str) -> Image.Image:
        """The raster of a layer: a line for each neuron, a column for each time step, a mark for each spike."""
        fired = self.raster(layer)
        color = COLORS[list(self.spikes).index(layer) % len(COLORS)]
        wide = min(max(_SIDE // fired.shape[1], 2), 24)
        pixels = np.full((*fired.shape, 3), 255, np.uint8)
        pixels[fired] = np.round(255 * np.array(to_rgb(color)))
        marks = np.kron(pixels, np.ones((3, wide, 1), np.uint8))
        marks[:, ::wide] = 235  # between the steps
        return Image.fromarray(marks)

    def summary_ratio_image(self) -> Image.Image:
        """The summary ratio as colors over the image in gray, from its least value (dark) to its greatest (bright)."""
        low, high = float(self.summary_ratio.min()), float(self.summary_ratio.max())
        scaled = (self.summary_ratio - low) / max(high - low, 1e-9)
        colors = (255 * matplotlib.colormaps["magma"](scaled)[..., :3]).astype(np.uint8)
        scale = max(_SIDE / max(self.image.size), 1)  # a small image is enlarged, so that its tokens can be seen
        size = (round(scale * self.image.width), round(scale * self.image.height))
        heat = Image.fromarray(colors).resize(size, Image.Resampling.NEAREST)
        return Image.blend(self.image.resize(size).convert("L").convert("RGB"), heat, 0.6)

    def to_dict(self) -> JsonObject:
        """All numbers in JSON's types; of the spikes, the rate of each layer at each time step."""
        return {
            "image": self.name,
            "model": self.model,
            "steps": self.steps,
            "rates": self.rates,
            "neurons": {layer: fired.shape[1] for layer, fired in self.spikes.items()},
            "rates at each step": {layer: fired.mean(1).tolist() for layer, fired in self.spikes.items()},
            "summary_ratio": self.summary_ratio.tolist(),
            "texts": {
                name: [{"text": text, "score": score} for text, score in nearest]
                for name, nearest in self.texts.items()
            },
        }

    def rows(self) -> list[Row]:
        """A row for each layer: neurons, rate in %, and the rate at each time step in %."""
        return [
            {
                "layer": layer,
                "neurons": fired.shape[1],
                "rate %": round(100 * float(fired.mean()), 2),
                "% at each step": " ".join(f"{100 * rate:.0f}" for rate in fired.mean(1)),
            }
            for layer, fired in self.spikes.items()
        ]

    def nearest_rows(self) -> list[Row]:
        """A row for each place: the nearest texts, with their cosines."""
        places = range(len(next(iter(self.texts.values()), ())))
        return [
            {"rank": place + 1, **{name: "{} ({:.3f})".format(*found[place]) for name, found in self.texts.items()}}
            for place in places
        ]

    def page(self) -> str:
        """A self-contained HTML page with all of it."""
        about = f"{self.model}: the spiking branch over {self.steps} time steps, from the reset state"
        return page(self.name, about, self._parts())

    def _parts(self) -> Iterator[str]:
        ratio = self.summary_ratio
        mean = f"Summary ratio: mean {ratio.mean():.3f}, {ratio.min():.3f} (dark) to {ratio.max():.3f} (bright)"
        yield cards(
            [
                f"{image_tag(self.image, self.name, _SIDE)}{paragraph('The image')}",
                f"{image_tag(self.summary_ratio_image(), 'summary ratio', _SIDE)}{paragraph(mean)}",
            ],
            large=True,
        )
        if self.texts:
            yield "<h2>Nearest texts</h2>" + table(self.nearest_rows())
        yield "<h2>Spikes</h2>" + table(self.rows())
        rasters = (
            image_tag(self.raster_image(layer), f"spikes of {layer}", _SIDE)
            + paragraph(
                f"{layer}: {len(self.raster(layer))} of {fired.shape[1]:,} neurons, a line each, over "
                f"{self.steps} time steps; {rate:.1%} of all fire at a step",
                "soft",
            )
            for (layer, fired), rate in zip(self.spikes.items(), self.rates.values(), strict=True)
        )
        yield cards(rasters, large=True)
