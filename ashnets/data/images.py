"""Any picture to RGB, with one clear error for everything that is not a usable picture."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ashnets.errors import InputError

ImageSource = Image.Image | str | os.PathLike | bytes | bytearray | memoryview | IO[bytes] | np.ndarray

MIN_SIDE = 8
MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB; also the size from which Pillow warns
# Named, because some of Pillow's other readers start programs (EPS) or fetch further files.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def load_image(
    source: ImageSource, *, background: tuple[int, int, int] = (255, 255, 255), max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read a picture as RGB; transparency is laid over ``background``, the EXIF orientation is applied.

    ``source``: PIL image, path, encoded bytes, binary file, or array (H, W), (H, W, 1 | 3 | 4) of uint8 or of float
    in [0, 1]. Of an animation the first frame is taken; CMYK, palettes, grey and 16-bit grey are converted.
    Raises InputError for anything else, for damaged files, for sides under 8 px, and, before decoding, for pictures
    of more than ``max_pixels`` pixels.
    """
    rgba = load_rgba(source, max_pixels=max_pixels)
    ground = Image.new("RGBA", rgba.size, (*background, 255))
    return Image.alpha_composite(ground, rgba).convert("RGB")


def load_rgba(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Like `load_image`, with transparency kept (mode RGBA)."""
    label = _label(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _convert(source, label, max_pixels)
    try:
        with Image.open(_stream(source, label), formats=FORMATS) as image:
            return _convert(image, label, max_pixels)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # raised at opening, before any decoding
        raise InputError(f"{label} has too many pixels to be decoded; the limit is {max_pixels}.") from None
    except UnidentifiedImageError:
        raise InputError(f"{label} is not a picture that can be read; give one of {', '.join(FORMATS)}.") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        raise InputError(f"{label} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from None


def _label(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return f"Picture {os.fspath(source)!r}"
    if isinstance(source, np.ndarray):
        return f"Picture array of shape {source.shape}"
    name = getattr(source, "filename", "") or getattr(source, "name", "")
    return f"Picture {name!r}" if isinstance(name, str) and name else f"Picture ({type(source).__name__})"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _stream(source: Any, label: str) -> IO[bytes]:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            raise InputError(f"{label} is a folder. Give the path of one picture.")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise InputError(f"{label} does not exist. Check the path.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{label} cannot be read ({_first_line(error)}).") from None
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise InputError(f"{label} yields text. Open the file in binary mode ('rb').")
    else:
        raise InputError(f"{label} is no picture. Give a PIL image, a path, bytes, a binary file or a numpy array.")
    if not data:
        raise InputError(f"{label} is empty (0 bytes).")
    return io.BytesIO(data)


def _check_size(label: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InputError(f"{label} is {width} x {height} px; the limit is {max_pixels} pixels. Scale it down first.")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{label} is {width} x {height} px; each side needs at least {MIN_SIDE} px.")


def _convert(image: Image.Image, label: str, max_pixels: int) -> Image.Image:
    _check_size(label, image.size, max_pixels)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            return _from_array(_to_8_bits(np.asarray(image)), max_pixels)
        if image.mode == "F":
            return _from_array(np.asarray(image), max_pixels)
        return image.convert("RGBA")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{label} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from None


def _to_8_bits(grey: np.ndarray) -> np.ndarray:
    """16-bit grey, also where Pillow holds it in 32 bits, to 8 bits: 65535 becomes 255."""
    return np.round(np.clip(grey.astype(np.float64), 0, 65535) / 257.0).astype(np.uint8)


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    label = f"Picture array of shape {array.shape}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        hint = " Move the channels to the end." if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise InputError(f"{label} is no picture: expected (height, width) or (height, width, 1, 3 or 4).{hint}")
    _check_size(label, (array.shape[1], array.shape[0]), max_pixels)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise InputError(f"{label} holds NaN or infinite values.")
        low, high = float(array.min(initial=0)), float(array.max(initial=0))
        if low < 0 or high > 1:
            raise InputError(f"{label}: floats must lie in [0, 1], found {low:g} to {high:g}. Use uint8 for 0..255.")
        array = np.round(array.astype(np.float64) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{label} has dtype {array.dtype}; give uint8 (0 to 255) or float (0 to 1).")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGBA")
