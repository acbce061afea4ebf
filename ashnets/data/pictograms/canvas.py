"""Canvases: several drawings tiled on one white image, each described by its name alone.

    grid3:google/1f34e@0,4,8;google/1f436@2        3 × 3 cells, counted row by row from 0
    grid2:google/1f34e@3;cover@0                   a gray card covers cell 0

The name describes the whole canvas, so no image is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from ashnets.errors import DataError

COVER = "cover"
SIDE = 192
_GRAY = (128, 128, 128)
_FORM = re.compile(r"grid([2-9]):(.+)", re.ASCII)


def canvas_name(grid: int, cells: Mapping[str, Sequence[int]]) -> str:
    """The name of a canvas: drawing (or ``cover``) → cells. Empty ones are left out."""
    return f"grid{grid}:" + ";".join(f"{name}@{','.join(map(str, at))}" for name, at in cells.items() if at)


def is_canvas(name: str) -> bool:
    """Whether an image's name is that of a canvas."""
    return _FORM.fullmatch(name) is not None


def read_name(name: str) -> tuple[int, dict[str, list[int]]]:
    """Grid and cells of a canvas. Raises DataError if it is not a canvas, or if a cell is outside or used twice."""
    match = _FORM.fullmatch(name)
    if match is None:
        raise DataError(f"{name!r} is not a canvas; its name must look like grid3:google/1f34e@0,4;google/1f436@2.")
    grid = int(match[1])
    cells: dict[str, list[int]] = {}
    for part in match[2].split(";"):
        drawing, _, at = part.rpartition("@")
        if not drawing or not re.fullmatch(r"\d+(,\d+)*", at, re.ASCII):
            raise DataError(f"{name!r}: {part!r} is not a drawing with its cells, such as google/1f34e@0,4.")
        cells[drawing] = [int(cell) for cell in at.split(",")]
    taken = [cell for at in cells.values() for cell in at]
    if len(set(taken)) < len(taken) or max(taken) >= grid**2:
        raise DataError(f"{name!r}: its cells must lie in 0..{grid**2 - 1} and contain one drawing each.")
    return grid, cells


def draw_canvas(name: str, drawing: Callable[[str], Image.Image]) -> Image.Image:
    """The canvas as an RGB image of 192 × 192; ``drawing`` gives the RGB image of a drawing."""
    grid, cells = read_name(name)
    side = SIDE // grid
    canvas = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    for part, at in cells.items():
        inner = round(0.9 * side)
        tile = Image.new("RGB", (inner, inner), _GRAY)
        if part != COVER:
            tile = drawing(part).resize((inner, inner), Image.Resampling.BICUBIC)
        for cell in at:
            row, column = divmod(cell, grid)
            margin = (side - inner) // 2
            canvas.paste(tile, (column * side + margin, row * side + margin))
    return canvas
