"""Convert any image to RGB, with one clear error for everything that is not a usable image."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ashnets.data.folders import as_given, is_url, read_file, reason
from ashnets.errors import InputError

ImageSource = Image.Image | str | os.PathLike | bytes | bytearray | memoryview | IO[bytes] | np.ndarray

MIN_SIDE = 8
MAX_PIXELS = 89_478_485  # 0.25 GiB as RGB; Pillow warns from this size on
MAX_BYTES = 2**30  # of a file; MAX_PIXELS pixels of four 16-bit samples take 0.7 GB without compression
# A fixed list, because some other readers of Pillow start programs (EPS), open more files, or accept any data.
_NAMES = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
}
_OPTIONAL = {"WEBP": "PIL._webp", "AVIF": "PIL._avif"}  # parts that not every build of Pillow has
FORMATS = tuple(name for name in _NAMES if name not in _OPTIONAL or importlib.util.find_spec(_OPTIONAL[name]))
SUFFIXES = frozenset(suffix for name in FORMATS for suffix in _NAMES[name])
# Suffixes of images that are not read: people take them for images, so they are told.
OTHER_FORMATS = frozenset(suffix for name in _NAMES for suffix in _NAMES[name]).difference(SUFFIXES) | {
    *(".heic", ".heif", ".jxl", ".svg", ".ico", ".tga", ".psd", ".xcf", ".ai", ".eps"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks of a PNG that no pixel needs and whose size Pillow limits
_PNG = b"\x89PNG\r\n\x1a\n"
_TURNS: dict[object, Image.Transpose] = {  # EXIF orientation → how the image is turned upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image(file: str) -> bool:
    """Whether the suffix is that of a supported image format."""
    return PurePosixPath(file).suffix.lower() in SUFFIXES


def load_image(
    source: ImageSource, *, background: tuple[int, int, int] = (255, 255, 255), max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read an image as RGB; transparent pixels show ``background``, and the EXIF orientation is applied.

    ``source``: PIL image, path, encoded bytes, binary file, or array (H, W), (H, W, 1 | 3 | 4) or (1 | 3 | 4, H, W) of
    uint8 or of float in [0, 1]. The first frame of an animation is used; CMYK, palettes, gray and 16-bit gray are
    converted. Raises InputError for anything else, for damaged files, for sides under 8 px, and, before decoding, for
    images of more than ``max_pixels`` pixels.
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
    data = _read(source, label)
    try:
        return _decode(data, label, max_pixels)
    except InputError:
        if len(bare := _without_texts(data)) < len(data):
            return _decode(bare, label, max_pixels)
        raise


def _decode(data: bytes, label: str, max_pixels: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _convert(image, label, max_pixels, data)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # raised at opening, before any decoding
        raise InputError(f"{label} has too many pixels to be decoded; the limit is {max_pixels}.") from None
    except UnidentifiedImageError:
        raise InputError(f"{label} is not an image that can be read; give one of {', '.join(FORMATS)}.") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        raise InputError(f"{label} is damaged or cut short and cannot be decoded ({reason(error)}).") from None


def _label(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return f"Image {as_given(source)!r}"
    if isinstance(source, np.ndarray):
        return f"Image array of shape {source.shape}"
    name = getattr(source, "filename", "") or getattr(source, "name", "")
    return f"Image {name!r}" if isinstance(name, str) and name else f"Image ({type(source).__name__})"


def _read(source: object, label: str) -> bytes:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            raise InputError(f"{label} is a folder. Give the path of one image.")
        try:
            data = read_file(path, MAX_BYTES)
        except FileNotFoundError:
            if is_url(source):
                raise InputError(f"{label} is a URL. Download the image and give the path of the file.") from None
            raise InputError(f"{label} does not exist. Check the path.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{label} cannot be read ({reason(error)}).") from None
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise InputError(f"{label} yields text. Open the file in binary mode ('rb').")
    else:
        raise InputError(f"{label} is not an image. Give a PIL image, a path, bytes, a binary file or a numpy array.")
    if not data:
        raise InputError(f"{label} is empty (0 bytes).")
    return data


def _check_size(label: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InputError(f"{label} is {width} x {height} px; the limit is {max_pixels} pixels. Scale it down first.")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{label} is {width} x {height} px; each side needs at least {MIN_SIDE} px.")


def _without_texts(data: bytes) -> bytes:
    """A PNG without its texts and its color profile; anything else as it is."""
    if not data.startswith(_PNG):
        return data
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in _TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _convert(image: Image.Image, label: str, max_pixels: int, data: bytes | None = None) -> Image.Image:
    """``data``: the file that ``image`` was opened from and is alone in."""
    _check_size(label, image.size, max_pixels)
    try:
        tile = getattr(image, "tile", None)
        packed = tile[0].args if tile and image.format == "PNG" else ""  # how samples lie in the file: "RGB;16B"
        image.load()
        image = _upright(image)
        transparent = _transparent(image, packed, data)
        if image.mode.startswith("I"):
            rgba = _from_array(_to_8_bits(np.asarray(image)), max_pixels)
        elif image.mode == "F":
            rgba = _from_array(np.asarray(image), max_pixels)
        elif image.mode in ("HSV", "LAB"):  # Pillow turns them into RGB alone, if at all
            rgba = image.convert("RGB").convert("RGBA")
        else:
            rgba = image.convert("RGBA")
        if transparent is not None:
            rgba.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
        return rgba
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{label} is damaged or cut short and cannot be decoded ({reason(error)}).") from None


def _upright(image: Image.Image) -> Image.Image:
    """A copy that is turned as its EXIF says. Only this tag is read: others may be damaged, and do not matter."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow's readers of a damaged block raise many classes
        turn = None
    return image.copy() if turn is None else image.transpose(turn)


def _transparent(image: Image.Image, packed: object, data: bytes | None) -> np.ndarray | None:
    """Where a PNG has its transparent color (chunk tRNS), (H, W), if that is not 8 bits deep; else None.

    Pillow compares the color as the file states it with samples that it has brought to 8 bits.
    """
    color = image.info.get("transparency")
    if packed in ("L;2", "L;4"):
        return None if color is None else np.asarray(image) == color * (85 if packed == "L;2" else 17)
    if image.mode.startswith("I") and isinstance(color, int):
        return np.asarray(image) == color
    if image.mode != "RGB" or not isinstance(color, tuple) or (packed != "RGB;16B" and max(color) < 256):
        return None
    del image.info["transparency"]
    low: np.ndarray = np.array(color) & 255  # of an image that somebody else has decoded only the high bytes are left
    if packed == "RGB;16B" and data is not None:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
            again.tile = [one._replace(args="RGB;16L") for one in again.tile]  # the other byte is then the high one
            low = np.asarray(_upright(again), dtype=np.uint16)
    return ((np.asarray(image, dtype=np.uint16) << 8 | low) == np.array(color)).all(-1)


def _to_8_bits(gray: np.ndarray) -> np.ndarray:
    """16-bit gray, also where Pillow holds it in 32 bits, to 8 bits: 65535 becomes 255."""
    return np.round(np.clip(gray.astype(np.float64), 0, 65535) / 257.0).astype(np.uint8)


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    label = f"Image array of shape {array.shape}"
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # sides are longer, so that nothing else can be meant
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise InputError(
            f"{label} is not an image: expected (height, width), or (height, width, channels) or (channels, height, "
            "width) with 1, 3 or 4 channels."
        )
    _check_size(label, (array.shape[1], array.shape[0]), max_pixels)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise InputError(f"{label} contains NaN or infinite values.")
        low, high = float(array.min(initial=0)), float(array.max(initial=0))
        if low < 0 or high > 1:
            raise InputError(f"{label}: floats must lie in [0, 1], found {low:g} to {high:g}. Use uint8 for 0..255.")
        array = np.round(array.astype(np.float64) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{label} has dtype {array.dtype}; give uint8 (0 to 255) or float (0 to 1).")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGBA")
