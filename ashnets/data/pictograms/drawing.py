"""One drawing as a square PNG, from SVG or a bitmap."""

from __future__ import annotations

import io

from PIL import Image

from ashnets.data.images import load_rgba
from ashnets.errors import DataError, InputError, MissingExtraError


def draw(data: bytes, size: int, *, label: str = "drawing") -> bytes:
    """SVG, PNG or WebP to an RGBA PNG whose longer side is ``size`` px, or less where a bitmap is published smaller."""
    try:
        if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
            image = _square(load_rgba(_render(data.decode("utf-8-sig"), size)), size)
        else:
            image = load_rgba(data)
            if max(image.size) > size:
                image.thumbnail((size, size), Image.Resampling.LANCZOS)
            elif data.startswith(b"\x89PNG") and data[25] == 6 and data[24] == 8:  # RGBA, 8 bits: as published
                return data
    except (InputError, ValueError) as error:
        raise DataError(f"{label}: the drawing cannot be rendered ({error}).") from None
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _render(svg: str, size: int) -> bytes:
    try:
        import resvg_py
    except ImportError:
        raise MissingExtraError("Drawing SVG files needs resvg-py: pip install 'ashnets[train]'.") from None
    # No system fonts: text is drawn as paths in these sets, and the result must not depend on the machine.
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True))


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (size, size))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def fill(data: bytes, size: int) -> bytes:
    """The drawing without its empty margins, on a square of ``size`` px: many pages are far larger than the drawing.

    It is made smaller, never larger: give it a drawing of several times ``size`` px.
    """
    image = load_rgba(data)
    buffer = io.BytesIO()
    _square(image.crop(image.getchannel("A").getbbox()), size).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
