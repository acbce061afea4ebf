"""Reading images: all accepted kinds against pixels by hand, and all refused kinds."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from ashnets.data.images import FORMATS, SUFFIXES, is_image, load_image, load_rgba
from ashnets.errors import InputError


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 24, height: int = 16) -> np.ndarray:
    """(height, width, 3) uint8, different in every pixel."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 10, columns * 10, rows + columns], axis=-1).astype(np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims side × side pixels; decoding it would need gigabytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_all_ways_to_hand_over_one_image_agree(tmp_path):
    pixels = gradient()
    data = encode(Image.fromarray(pixels))
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with open(path, "rb") as stream:
        sources = [path, str(path), data, bytearray(data), memoryview(data), stream, io.BytesIO(data), pixels]
        loaded = [load_image(source) for source in [*sources, Image.fromarray(pixels), pixels / 255.0]]
    for image in loaded:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_transparency_is_laid_over_the_background():
    rgba = Image.new("RGBA", (8, 8), (200, 100, 0, 51))  # alpha 51/255 = 0.2
    assert load_image(rgba, background=(0, 0, 0)).getpixel((3, 3)) == (40, 20, 0)
    assert load_image(rgba).getpixel((3, 3)) == (244, 224, 204)  # 0.2 · color + 0.8 · 255
    assert load_rgba(rgba).getpixel((3, 3)) == (200, 100, 0, 51)


def test_exif_orientation_is_applied():
    pixels = gradient()
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    loaded = np.asarray(load_image(encode(image, "PNG", exif=exif)))
    np.testing.assert_array_equal(loaded, np.rot90(pixels, k=-1))


def test_only_the_orientation_of_exif_matters():
    """A camera's XResolution is a text here: it is not read. Blocks that cannot be read at all turn nothing."""
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:8, :8] = 255  # top left, so that it belongs at the top right
    entries = struct.pack("<HHI4s", 0x112, 3, 1, b"\6\0\0\0") + struct.pack("<HHI4s", 0x11A, 2, 3, b"72\0\0")
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4)
    loaded = np.asarray(load_image(encode(Image.fromarray(pixels), "JPEG", exif=block, quality=95)))
    assert loaded.shape == (16, 24, 3)
    assert loaded[:8, 16:].mean() > 250 and loaded[:, :16].mean() < 5 and loaded[8:].mean() < 5
    for block in (b"Exif\0\0garbage garbage", b"Exif\0\0" + bytes(64), b"Exif\0\0II*\0"):
        for kind in ("PNG", "WEBP"):
            options = {"lossless": True} if kind == "WEBP" else {}
            loaded = np.asarray(load_image(encode(Image.fromarray(pixels), kind, exif=block, **options)))
            np.testing.assert_array_equal(loaded, pixels)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_that_of_pillow(orientation):
    pixels = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(pixels), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(np.asarray(load_image(data)), expected)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (9, 9), 77), (77, 77, 77)),
        (Image.new("1", (9, 9), 1), (255, 255, 255)),
        (Image.new("LA", (9, 9), (100, 255)), (100, 100, 100)),
        (Image.new("CMYK", (9, 9), (255, 0, 0, 0)), (0, 255, 255)),
        (Image.new("I;16", (9, 9), 257 * 60), (60, 60, 60)),
        (Image.new("I", (9, 9), 65535), (255, 255, 255)),
        (Image.new("YCbCr", (9, 9), (128, 128, 128)), (128, 128, 128)),
        (Image.new("F", (9, 9), 0.2), (51, 51, 51)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_other_modes(image, expected):
    assert load_image(image).getpixel((4, 4)) == expected


def test_files_of_other_modes():
    assert load_image(encode(Image.new("CMYK", (9, 9), (0, 0, 0, 255)), "JPEG")).getpixel((4, 4)) == (0, 0, 0)
    assert load_image(encode(Image.new("I;16", (9, 9), 257 * 200), "PNG")).getpixel((4, 4)) == (200, 200, 200)
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert load_image(encode(palette, "PNG", transparency=1)).getpixel((4, 4)) == (255, 255, 255)
    assert load_image(encode(palette, "PNG")).getpixel((4, 4)) == (40, 50, 60)


def png(width: int, height: int, depth: int, color: int, rows: list[bytes], *chunks: bytes) -> bytes:
    """A PNG written by hand, with ``chunks`` before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


GRAY, RGB = 0, 2
KEYED = {  # depth and kind, two pixels of which the first has the transparent color, that color, the second as RGBA
    "gray 16": (16, GRAY, struct.pack(">2H", 0x1234, 0x1235), struct.pack(">H", 0x1234), (18, 18, 18, 255)),
    "RGB 16": (
        16,
        RGB,
        struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x1234, 0x5679, 0x9ABC),
        struct.pack(">3H", 0x1234, 0x5678, 0x9ABC),
        (0x12, 0x56, 0x9A, 255),
    ),
    "RGB 16, a dark color": (
        16,
        RGB,
        struct.pack(">6H", 3, 2, 1, 3, 2, 0),
        struct.pack(">3H", 3, 2, 1),
        (0, 0, 0, 255),
    ),
    "RGB 8": (8, RGB, bytes([1, 2, 3, 1, 2, 4]), struct.pack(">3H", 1, 2, 3), (1, 2, 4, 255)),
    "gray 8": (8, GRAY, bytes([7, 8]), struct.pack(">H", 7), (8, 8, 8, 255)),
    "gray 4": (4, GRAY, bytes([0x56]), struct.pack(">H", 5), (6 * 17, 6 * 17, 6 * 17, 255)),
    "gray 2": (2, GRAY, bytes([0b01100110]), struct.pack(">H", 1), (170, 170, 170, 255)),
    "gray 1": (1, GRAY, bytes([0b01010101]), struct.pack(">H", 0), (255, 255, 255, 255)),
}


@pytest.mark.parametrize("kind", KEYED)
def test_the_transparent_color_of_a_png(kind):
    """The chunk tRNS names one color in the depth of the file; only pixels of exactly this color are transparent."""
    depth, color, pair, key, second = KEYED[kind]
    row = pair * (4 if depth > 4 else depth)  # eight pixels
    data = png(8, 8, depth, color, [row] * 8, chunk(b"tRNS", key))
    loaded = load_rgba(data)
    assert loaded.getpixel((0, 0))[3] == 0 and loaded.getpixel((1, 0)) == second
    assert load_image(data, background=(9, 8, 7)).getpixel((2, 5)) == (9, 8, 7)
    assert load_image(data, background=(9, 8, 7)).getpixel((3, 5)) == second[:3]
    turned = png(8, 8, depth, color, [row] * 8, chunk(b"tRNS", key), chunk(b"eXIf", turned_exif()))
    assert [load_rgba(turned).getpixel((5, y))[3] for y in (0, 1)] == [0, 255], "columns become rows"


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_a_transparent_color_where_only_the_high_bytes_are_left():
    """The file was decoded by other code."""
    depth, color, pair, key, _ = KEYED["RGB 16"]
    image = Image.open(io.BytesIO(png(8, 8, depth, color, [pair * 4] * 8, chunk(b"tRNS", key))))
    image.load()
    assert load_rgba(image).getpixel((0, 0))[3] == 0
    assert image.info["transparency"] == (0x1234, 0x5678, 0x9ABC), "the given image stays as it is"


@pytest.mark.parametrize("text", ["long", "profile", "damaged"])
def test_texts_of_a_png_are_not_needed(text):
    """Pillow refuses texts and color profiles of more than 1 MiB."""
    megabyte = zlib.compress(bytes(2**20 + 1))
    chunks = {
        "long": [chunk(b"zTXt", b"Comment\0\0" + megabyte)],
        "profile": [chunk(b"iCCP", b"wide\0\0" + megabyte)],
        "damaged": [chunk(b"tEXt", b"Comment\0text")[:-4] + b"\0\0\0\0"],
    }[text]
    rows = [bytes([10, 20, 30] * 8)] * 8
    data = png(8, 8, 8, RGB, rows, *chunks, chunk(b"eXIf", turned_exif()))
    assert load_image(data).getpixel((3, 3)) == (10, 20, 30)
    with pytest.raises(InputError, match="damaged or cut short"):
        load_image(data[:-27])


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_is_that_of_a_format_that_is_read(suffix, tmp_path):
    kind = Image.registered_extensions().get(suffix)
    kind = "JPEG" if kind == "MPO" else kind
    path = tmp_path / f"A{suffix.upper()}"
    path.write_bytes(encode(Image.new("RGB", (16, 12), (200, 100, 50)), kind))
    assert is_image(path.name) and kind in FORMATS
    assert np.abs(np.subtract(load_image(path).getpixel((8, 6)), (200, 100, 50))).max() <= 8, "lossy formats"


def test_modes_without_a_way_to_rgba():
    assert load_image(Image.new("HSV", (9, 9), (0, 255, 255))).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (16, 16), color) for color in [(255, 0, 0), (0, 0, 255)]]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert load_image(data).getpixel((8, 8)) == (255, 0, 0)


def test_arrays():
    gray = np.arange(90, dtype=np.uint8).reshape(9, 10)
    for array in (gray, gray[:, :, None]):
        assert load_image(array).size == (10, 9)
        np.testing.assert_array_equal(np.asarray(load_image(array))[..., 2], gray)
    with_alpha = np.zeros((9, 9, 4), np.float32)  # black, wholly transparent
    assert load_image(with_alpha).getpixel((0, 0)) == (255, 255, 255)
    backwards = gradient()[::-1, ::-1]  # negative strides
    np.testing.assert_array_equal(np.asarray(load_image(backwards)), backwards)
    channels_first = backwards.transpose(2, 0, 1)
    np.testing.assert_array_equal(np.asarray(load_image(channels_first)), backwards)


IMAGE = encode(Image.fromarray(gradient(64, 64)))
JPEG = encode(Image.fromarray(gradient(64, 64)), "JPEG")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"just some text, no image at all", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        (b"", "empty"),
        (IMAGE[:-60], "damaged or cut short"),
        (IMAGE[:40], "not an image"),
        (JPEG[: len(JPEG) // 2], "damaged or cut short"),
        (encode(Image.new("RGB", (1, 1))), "1 x 1 px"),
        (encode(Image.new("RGB", (7, 200))), "7 x 200 px"),
        (np.zeros((7, 9, 3), np.uint8), "9 x 7 px"),
        (np.zeros((5, 32, 32), np.uint8), "with 1, 3 or 4 channels"),
        (np.zeros((2, 3, 32, 32), np.uint8), "expected"),
        (np.zeros(64, np.uint8), "expected"),
        (np.zeros((16, 16, 3), np.int64), "dtype int64"),
        (np.zeros((16, 16, 3), bool), "dtype bool"),
        (np.full((16, 16), "a"), "dtype"),
        (np.full((16, 16, 3), 1.5), r"\[0, 1\], found 0 to 1.5"),
        (np.full((16, 16, 3), -0.1), "found -0.1"),
        (np.full((16, 16, 3), np.nan), "NaN"),
        (np.full((16, 16), np.inf), "infinite"),
        (np.zeros((0, 16, 3), np.uint8), "16 x 0 px"),
        (io.StringIO("text"), "binary mode"),
        (None, "is not an image"),
        (3.5, "is not an image"),
        ("no/such/file.png", "does not exist. Check the path"),
        ("https://example.org/a.png", r"^Image 'https://example.org/a.png' is a URL. Download the image"),
        (Path("https://example.org/a.png"), r"^Image 'https://example.org/a.png' is a URL. Download the image"),
        ("zero\0byte", "cannot be read"),
    ],
)
def test_refused(source, says):
    with pytest.raises(InputError, match=says) as caught:
        load_image(source)
    assert caught.value.__cause__ is None and "Traceback" not in str(caught.value)


def test_refused_paths(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)
    text = tmp_path / "readme.png"
    text.write_text("hello")
    with pytest.raises(InputError, match=r"readme\.png"):
        load_image(text)


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
def test_bombs_are_refused_before_decoding(side, monkeypatch):
    def decoded(self):
        raise AssertionError("the image was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning must not escape as another exception
        with pytest.raises(InputError, match="pixels"):
            load_image(bomb(side))


def test_limit_of_pixels_counts_for_every_source():
    pixels = gradient(20, 10)
    for source in (pixels, Image.fromarray(pixels), encode(Image.fromarray(pixels))):
        assert load_image(source, max_pixels=200).size == (20, 10)
        with pytest.raises(InputError, match="is 20 x 10 px; the limit is 199 pixels"):
            load_image(source, max_pixels=199)


def test_settings_of_pillow_and_the_given_image_stay_as_they_are():
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    given = Image.new("P", (16, 16))
    for source in (IMAGE, JPEG[:200], bomb(20_000), given):
        with contextlib.suppress(InputError):
            load_image(source)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
    assert given.mode == "P"
