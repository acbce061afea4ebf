"""One drawing as a square PNG, from SVG or a bitmap."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree

from PIL import Image

from ashnets.data.images import load_rgba
from ashnets.errors import DataError, InputError, MissingExtraError
from ashnets.words import install

_LENGTH = re.compile(r"\s*(\d*\.?\d+)\s*(px|pt|pc|mm|cm|in|)\s*")
_UNITS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}  # CSS, in px
_SAFE_DATA = re.compile(r"data:image/(png|jpe?g|gif|webp);")


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
        raise MissingExtraError(f"Drawing SVG files needs resvg-py: {install('train')}.") from None
    # No system fonts: text is drawn as paths in these sets, and the result must not depend on the machine.
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True))


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (size, size))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def with_view(root: ElementTree.Element, data: bytes) -> bytes:
    """The drawing with a ``viewBox``: without one, resvg-py finds no size in a width such as ``220pt``."""
    if root.get("viewBox"):
        return data
    sides = [_LENGTH.fullmatch(root.get(side, "")) for side in ("width", "height")]
    lengths = [float(found[1]) * _UNITS[found[2]] for found in sides if found]
    if len(lengths) < 2:
        return data
    root.set("viewBox", f"0 0 {lengths[0]:g} {lengths[1]:g}")
    root.set("width", f"{lengths[0]:g}")
    root.set("height", f"{lengths[1]:g}")
    return bytes(ElementTree.tostring(root, encoding="utf-8"))


def refers_outside(root: ElementTree.Element) -> bool:
    """Whether an image of the drawing lies in another file; a renderer would read that file."""
    for node in root.iter():
        if node.tag.rpartition("}")[2] in ("image", "feImage", "use", "include"):
            for key, value in node.attrib.items():
                if key.rpartition("}")[2] == "href" and not value.startswith("#") and not _SAFE_DATA.match(value):
                    return True
    return False


def fill(data: bytes, size: int) -> bytes:
    """The drawing without its empty margins, on a square of ``size`` px: many pages are far larger than the drawing.

    It is made smaller, never larger: give it a drawing of several times ``size`` px.
    """
    image = load_rgba(data)
    buffer = io.BytesIO()
    _square(image.crop(image.getchannel("A").getbbox()), size).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
