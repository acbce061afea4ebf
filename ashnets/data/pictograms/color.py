r"""The main color of a drawing, from its own pixels.

    color = the named color of most opaque pixels, if it has half of them; else the drawing has none

Pixels whose alpha is at least a half count. A pixel (H in degrees, S, V in [0, 1]) is black for V < 0.2; white, or grey
for V ≤ 0.85, for S < 0.15; brown for an orange or red hue with V < 0.6 and H ≥ 10; pink for a red hue with S < 0.5 and
V > 0.7; else its hue has the name of `HUES`. The bounds are ours: vendors draw one concept in different colors, so a
color that is asked for can only come from the image itself. The names are answers of trained models: keep them.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

COLORS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
HUES = ((15, "red"), (40, "orange"), (70, "yellow"), (165, "green"), (255, "blue"), (290, "purple"), (345, "pink"))
SHARE = 0.5
_SIDE = 32


def color_of(red: int, green: int, blue: int) -> str:
    """The name of one color, of `COLORS`; channels in 0..255."""
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    degrees = 360 * hue
    if value < 0.2:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.85 else "grey"
    name = next((name for bound, name in HUES if degrees < bound), "red")
    if name in ("red", "orange") and 10 <= degrees < 40 and value < 0.6:
        return "brown"
    if name == "red" and saturation < 0.5 and value > 0.7:
        return "pink"
    return name


def main_color(image: Image.Image) -> str | None:
    """The color of at least half of the opaque pixels of an RGBA image, seen at 32 × 32; None without one."""
    small = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST))
    opaque = small[small[..., 3] >= 128][:, :3]
    if not len(opaque):
        return None
    names = _NAMES[tuple((opaque >> 3).T)]
    counts = np.bincount(names, minlength=len(COLORS))
    best = int(counts.argmax())
    return COLORS[best] if counts[best] >= SHARE * len(opaque) else None


def _table() -> np.ndarray:
    """The colors of 32 × 32 × 32 cells, by their middles: naming every pixel by itself would take minutes."""
    middles = range(4, 256, 8)
    cells = [COLORS.index(color_of(r, g, b)) for r in middles for g in middles for b in middles]
    return np.array(cells, dtype=np.int64).reshape(32, 32, 32)


_NAMES = _table()
