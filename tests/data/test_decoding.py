"""What a file's pixels become: exactly themselves, or an error, or a stated conversion."""

from __future__ import annotations

import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms, features

from uge.data.decoding import ALPHA_OVER_WHITE, HIGH_BYTE, NEARLY_BLACK, TO_RGB, TO_SRGB, UnreadableImage, decode
from uge.errors import DataError

from ..refusals import refused
from .conftest import saved

AVIF = pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF"))
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda s: st.sampled_from([s, (*s, 3)]))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand, for the kinds that Pillow does not write. `rows` without filter bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = len(rows) // height
    data = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    transparency = chunk(b"tRNS", extra) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + transparency
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def refuses(content: bytes, *fragments: str, kind: type[DataError] = DataError, convert: bool = False) -> None:
    with refused(kind, "^cat/0.png: ", *fragments):
        decode(content, "cat/0.png", convert=convert)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("PPM", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})],
)
@settings(max_examples=40, deadline=None)
@given(pixels=SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)))
def test_lossless_files_keep_every_pixel(kind: str, options: dict[str, object], pixels: np.ndarray) -> None:
    found = np.asarray(decode(saved(Image.fromarray(pixels), kind, **options), "x"))
    if kind == "WEBP" and pixels.ndim == 2:  # WebP knows no gray
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    assert np.array_equal(found, pixels)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_escape_as_another_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"]))
    content = bytearray(saved(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), kind))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = value
    del content[data.draw(st.integers(0, len(content))) :]
    try:
        image = decode(bytes(content), "x", convert=True)
    except DataError:
        return
    assert image.mode in ("L", "RGB")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_of_gray_span_the_whole_range(depth: int) -> None:
    found = np.asarray(decode(png(2, 1, depth, 0, bytes([(2**depth - 1) << (8 - 2 * depth)])), "x"))
    assert found.tolist() == [[0, 255]]


def test_palettes_are_expanded() -> None:
    assert np.asarray(decode(saved(two_colours()), "x")).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_rotation_is_applied(orientation: int, kind: str) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    upright = np.repeat(upright[..., None], 3, axis=2)
    stored = {  # how a camera of this orientation stores the upright picture
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    assert np.array_equal(np.asarray(decode(content, "x")), upright)


def pixels(*values: object, kind: str = "PNG", dtype: type = np.uint8, **options: object) -> bytes:
    """A file of one row of pixels."""
    return saved(Image.fromarray(np.array([values], dtype)), kind, **options)


def two_colours() -> Image.Image:
    """A palette of two, each once."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    return image


SIXTEEN = (0x0000, 0x12FF, 0xFFFF)
WIDE = struct.pack(">HHH", *SIXTEEN)


@pytest.mark.parametrize(
    ("content", "why", "stated", "expected"),
    [
        (
            pixels([0, 0, 0, 0], [10, 20, 30, 255], [0, 100, 200, 51]),
            "alpha",
            ALPHA_OVER_WHITE,
            [[255] * 3, [10, 20, 30], [204, 224, 244]],
        ),
        (pixels([0, 0], [7, 255]), "alpha", ALPHA_OVER_WHITE, [255, 7]),  # gray stays gray
        (saved(two_colours(), transparency=0), "alpha", ALPHA_OVER_WHITE, [[255] * 3, [200, 100, 50]]),
        (pixels(5, 6, transparency=5), "alpha", ALPHA_OVER_WHITE, [255, 6]),
        (pixels([5] * 3, [6] * 3, transparency=(5, 5, 5)), "alpha", ALPHA_OVER_WHITE, [[255] * 3, [6] * 3]),
        *(
            (pixels(*SIXTEEN, kind=kind, dtype=np.uint16), "16 bits", HIGH_BYTE, [0x00, 0x12, 0xFF])
            for kind in ("PNG", "TIFF", "PPM")
        ),
        (png(1, 1, 16, 2, WIDE), "16 bits", HIGH_BYTE, [[0x00, 0x12, 0xFF]]),  # this and the next Pillow calls 8 bit
        (b"P6 1 1 65535 \x00\x00\x12\x12\xff\xff", "16 bits", HIGH_BYTE, [[0x00, 0x12, 0xFF]]),
        (saved(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), "CMYK", TO_RGB, [[255, 0, 0]]),
        (saved(Image.new("CMYK", (1, 1)), "JPEG"), "CMYK", TO_RGB, [[255] * 3]),
        (png(1, 1, 16, 6, struct.pack(">HHHH", *SIXTEEN, 0)), "16 bits", (HIGH_BYTE, ALPHA_OVER_WHITE), [[255] * 3]),
        (pixels(0, 4095, dtype=np.uint16), "16 bits", (HIGH_BYTE, NEARLY_BLACK), [0, 15]),  # twelve bits in sixteen
    ],
)
def test_what_would_lose_something_is_converted_where_that_is_asked_for(
    content: bytes, why: str, stated: str | tuple[str, str], expected: list
) -> None:
    refuses(content, why, "--convert")
    conversions: Counter[str] = Counter()
    image = decode(content, "x", convert=True, conversions=conversions)
    assert image.mode in ("L", "RGB") and np.asarray(image).tolist() == [expected]
    assert conversions == dict.fromkeys([stated] if isinstance(stated, str) else stated, 1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        *((png(1, 1, 16, 2 * (n > 1), b"\x12\x34" * n, extra=b"\x12\x34" * n), "transparent colour") for n in (1, 3)),
        (pixels(0, 3071, 65536 - 1000, kind="TIFF", dtype=np.uint16, tiffinfo={339: 2}), "negative values"),
        *((pixels(0, 0, kind="TIFF", dtype=dtype), "32 bits") for dtype in (np.int32, np.float32)),
    ],
)
def test_what_no_conversion_saves_is_refused_always(content: bytes, why: str) -> None:
    refuses(content, why, convert=True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF", AVIF])
def test_several_images_in_one_file(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    refuses(saved(frames[0], kind, save_all=True, append_images=frames[1:]), "holds several images")


@pytest.mark.parametrize("kind", ["GIF", AVIF])
def test_other_formats_are_read_by_what_they_are(kind: str) -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 40))
    found = np.asarray(decode(saved(image, kind), "web.jpg"), dtype=int)
    assert np.abs(found - [200, 40, 40]).max() <= 4


def test_a_phone_s_jpeg_with_a_preview_behind_it() -> None:
    frames = [Image.new("RGB", (16, 16), "red"), Image.new("RGB", (8, 8), "red")]
    assert decode(saved(frames[0], "MPO", save_all=True, append_images=frames[1:]), "x").size == (16, 16)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\x01", "JPEG XL"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_what_is_no_image_that_is_read_is_named(content: bytes, why: str) -> None:
    refuses(content, "cannot be read (", why, kind=UnreadableImage)


def test_every_cut_of_a_png_that_loses_pixels_is_unreadable() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    content = saved(Image.fromarray(pixels))
    for length in range(len(content)):
        try:
            found = np.asarray(decode(content[:length], "x"))
        except UnreadableImage:
            continue
        assert np.array_equal(found, pixels)  # only bytes after the last pixel were lost


def profile(*, gray: bool = False) -> bytes:
    """An ICC profile written by hand: the primaries of sRGB, or gray, and a straight line for the curve."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv" + bytes(8)
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)}
    if gray:
        tags[b"kTRC"] = curve
    else:
        primaries = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
        for letter, values in zip(b"rgb", primaries, strict=True):
            tags[bytes([letter]) + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*values)
            tags[bytes([letter]) + b"TRC"] = curve
    place = 128 + 4 + 12 * len(tags)
    table = struct.pack(">I", len(tags))
    for name, content in tags.items():
        table += name + struct.pack(">II", place, len(content))
        place += len(content)
    kind = b"GRAY" if gray else b"RGB "
    header = struct.pack(">I", place) + bytes(4) + bytes.fromhex("02400000") + b"mntr" + kind + b"XYZ " + bytes(12)
    header += b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + b"".join(tags.values())


class TestColourProfiles:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
    def test_they_are_applied_and_it_is_said(self, kind: str) -> None:
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
        content = saved(Image.new("RGB", (8, 8), (128, 64, 0)), kind, icc_profile=profile(), **options)
        conversions: Counter[str] = Counter()
        found = np.asarray(decode(content, "x", conversions=conversions))
        linear = np.array([128, 64, 0]) / 255  # sRGB's own curve, IEC 61966-2-1
        expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert np.abs(found[0, 0] - expected).max() <= (4 if kind == "JPEG" else 2)
        assert conversions == {TO_SRGB: 1}

    def test_gray_stays_gray(self) -> None:
        content = saved(Image.new("L", (2, 2), 128), icc_profile=profile(gray=True))
        found = decode(content, "x")
        assert found.mode == "L" and abs(found.getpixel((0, 0)) - 188) <= 2

    def test_srgb_under_another_name_changes_no_pixel(self) -> None:
        own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        conversions: Counter[str] = Counter()
        found = decode(saved(Image.fromarray(pixels), icc_profile=own), "x", conversions=conversions)
        assert np.array_equal(found, pixels) and not conversions

    @pytest.mark.parametrize("damaged", [b"", b"no profile", profile()[:200], profile(gray=True)])
    def test_one_that_is_damaged_or_of_another_mode_is_no_profile(self, damaged: bytes) -> None:
        image = Image.new("RGB", (2, 2), (1, 2, 3))
        assert decode(saved(image, icc_profile=damaged), "x").getpixel((0, 0)) == (1, 2, 3)

    def test_it_meets_what_convert_leaves(self) -> None:
        image = Image.new("RGBA", (1, 1), (128, 64, 0, 255))
        found = np.asarray(decode(saved(image, icc_profile=profile()), "x", convert=True))
        assert abs(int(found[0, 0, 0]) - 188) <= 2
