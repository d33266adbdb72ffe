"""One image file -> 8-bit gray or RGB pixels, or an error that says why not.

Taken as they are: 8-bit gray and RGB. Expanded without loss: palettes and 1-, 2- and 4-bit gray. EXIF rotation and
embedded colour profiles are applied, for they stay behind: of a file's metadata nothing else reaches a copy. Whatever
would lose information (alpha, 16 bits, CMYK and its like) is an error, or with `convert` a stated conversion.
"""

from __future__ import annotations

import io
from collections import Counter
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from uge.data.entries import Limits, error_line
from uge.data.images import ImageSet
from uge.errors import DataError

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm",  # those of torchvision's ImageFolder
    ".jpe", ".jfif", ".dib", ".pbm", ".pnm", ".gif", ".avif",
}  # fmt: skip

# Nothing else Pillow could open is ever run on a user's file.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "GIF", "AVIF")
_OTHER_FORMATS = (  # where, what stands there, and what such a file is
    (4, b"ftypavi", "AVIF, which this Pillow does not read"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a zip"),
    (0, b"version https://git-lfs", "a pointer of Git LFS (git lfs pull gets the file)"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
)
_EXPANDED = {"L": "L", "RGB": "RGB", "1": "L", "P": "RGB"}  # without loss
_OTHER_COLOURS = frozenset({"CMYK", "YCbCr", "LAB", "HSV"})

ALPHA_OVER_WHITE = "laid over white (alpha)"
HIGH_BYTE = "cut from 16 to 8 bits"
DARK = 1 << 13  # 12 bits stored in 16, as scanners do
NEARLY_BLACK = "nearly black by that, with no value above 8191 of 65535: scale them first if they hold 12 or 13 bits"
TO_RGB = "brought to RGB from another colour space"
TURNED = "turned upright, as their EXIF says"
ORIENTATION = 0x0112  # in EXIF; 1 is upright
TO_SRGB = "brought from their colour profile to sRGB"
_STEP = 2  # of 255: profiles that change no colour by more are sRGB under other names


class UnreadableImage(DataError):  # noqa: N818 - reads as what it is
    """A file that holds no whole image; `skip_bad` passes over these and over nothing else."""


def decode(
    content: bytes | Image.Image,
    where: str,
    *,
    convert: bool = False,
    conversions: Counter[str] | None = None,
    limits: Limits | None = None,
) -> Image.Image:
    """Decode one image.

    Args:
        content: the bytes of a file, or an image already in memory.
        where: names the file in errors.
        convert: bring alpha, 16-bit and CMYK images to 8-bit gray or RGB instead of refusing them.
        conversions: counts what was converted, by description.
        limits: the pixels that an image may have.

    Returns:
        A Pillow image of mode "L" or "RGB".

    Raises:
        UnreadableImage: the bytes hold no whole image.
        DataError: an image that would lose information, and `convert` is off.
    """
    limits = limits or Limits()
    conversions = Counter() if conversions is None else conversions
    image, bits = _opened(content, where, limits, conversions) if isinstance(content, bytes) else (content, 8)
    profile = image.info.get("icc_profile")
    if profile and image.mode == "CMYK" and convert and (found := _by_profile(image, profile)):
        conversions[TO_RGB] += 1
        return found
    image = _expanded(image, bits, where, convert, conversions)
    if profile and (found := _by_profile(image, profile)):
        conversions[TO_SRGB] += 1
        return found
    return image


def _expanded(image: Image.Image, bits: int, where: str, convert: bool, conversions: Counter[str]) -> Image.Image:
    """Any image as 8-bit gray or RGB; see `decode`."""
    mode = image.mode
    if bits == 8 and mode in ("L", "RGB") and not image.has_transparency_data:
        return image

    if bits == 32:
        raise DataError(f"{where}: has 32 bits a channel; expected 8-bit gray or RGB: save it again as one")
    if bits == 16:
        if not convert:
            raise DataError(
                f"{where}: has 16 bits a channel; expected 8-bit gray or RGB, or --convert to cut to 8 bits"
            )
        if "transparency" in image.info:
            raise DataError(f"{where}: has 16 bits and a transparent colour; save it again as 8-bit gray or RGB")
        conversions[HIGH_BYTE] += 1
        if mode.startswith("I"):  # Pillow has already cut colour to its high byte: do the same to gray
            values = np.asarray(image)
            if values.min(initial=0) < 0:
                raise DataError(f"{where}: has negative values (signed 16 bits); shift and scale them to 8 bits first")
            if values.max(initial=0) < DARK:
                conversions[NEARLY_BLACK] += 1
            image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        if not convert:
            raise DataError(f"{where}: has an alpha channel; expected gray or RGB, or --convert to lay it over white")
        conversions[ALPHA_OVER_WHITE] += 1
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return image.convert("L" if mode in ("1", "L", "LA") else "RGB")
    if image.mode in _OTHER_COLOURS:
        if not convert:
            raise DataError(f"{where}: is {mode}; expected gray or RGB, or --convert to bring it to RGB")
        conversions[TO_RGB] += 1
        return image.convert("RGB")
    if image.mode not in _EXPANDED:
        raise DataError(f"{where}: has the colour mode {mode}; expected 8-bit gray or RGB: save it again as one")
    return image.convert(_EXPANDED[image.mode])


def centre_cut(image: Image.Image, image_size: tuple[int, int]) -> Image.Image:
    """Cut the centre to the aspect of `image_size` (height, width), then resize, antialiased (Lanczos)."""
    height, width = image_size
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    cut_width, cut_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (image.width - cut_width) // 2, (image.height - cut_height) // 2
    centre = image.crop((left, top, left + cut_width, top + cut_height))
    return centre.resize((width, height), Image.Resampling.LANCZOS)


def squeezed(image: Image.Image, image_size: tuple[int, int]) -> Image.Image:
    """Resize to (height, width) without cutting, antialiased (Lanczos): how networks see photographs of any size."""
    height, width = image_size
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


def resized(image: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`squeezed` of a uint8 image [1 or 3, H, W]."""
    return image if tuple(image.shape[1:]) == image_size else tensor_of(squeezed(picture_of(image), image_size))


def shrunk(images: ImageSet, side: int) -> ImageSet:
    """Images whose longer side has so many pixels; those of a shorter one stay as they are."""
    longer = max(images.image_size)
    if longer <= side:
        return images
    height, width = (max(1, round(side * each / longer)) for each in images.image_size)
    return images.with_images(torch.stack([resized(image, (height, width)) for image in images.images]))


def picture_of(image: Tensor) -> Image.Image:
    """A uint8 image [1 or 3, H, W] as Pillow has it."""
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return Image.fromarray(array[:, :, 0] if len(image) == 1 else array)


def tensor_of(picture: Image.Image) -> Tensor:
    """A gray or RGB image of Pillow as uint8 [1 or 3, H, W]."""
    array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _opened(content: bytes, where: str, limits: Limits, conversions: Counter[str]) -> tuple[Image.Image, int]:
    """Open, read to the last byte and turn upright; the image and the file's bits a channel."""
    Image.init()
    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own limit says how to raise it
    try:
        with Image.open(io.BytesIO(content), formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
            limits.check(where, pixels=image.width * image.height)
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview behind
                raise DataError(f"{where}: holds several images; expected one a file")
            bits = _bits_per_channel(image)  # before loading, which clears the traces
            image.load()
            upright = ImageOps.exif_transpose(image)
            if image.getexif().get(ORIENTATION, 1) in range(2, 9):
                conversions[TURNED] += 1
            return upright, bits
    except DataError:
        raise
    except UnidentifiedImageError:
        kind = next((name for at, mark, name in _OTHER_FORMATS if content.startswith(mark, at)), None)
        reason = f"it is {kind}" if kind else "not an image" if content else "it is empty"
    except MemoryError:
        reason = "it does not fit into memory"
    except Exception as error:  # on damaged bytes Pillow's decoders raise errors of every type
        reason = error_line(error)
    finally:
        Image.MAX_IMAGE_PIXELS = most
    raise UnreadableImage(f"{where}: cannot be read ({reason}); mend or remove it, or --skip-bad to go on without")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The colours that a profile means, in sRGB; None where they are those already, or the profile is of no use."""
    transform = _transform(profile, image.mode)
    if transform is None:
        return None
    found = transform.apply(image)
    return found.convert("L") if image.mode == "L" else found


@lru_cache(maxsize=8)  # a camera's images all have one
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; None for a damaged profile, one of another mode, and sRGB itself."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
        if mode == "CMYK":
            return transform
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, len(levels), 3)
        colours = Image.fromarray(grid if mode == "RGB" else levels[None])
        found = transform.apply(colours)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    change = np.abs(np.asarray(found, dtype=int) - np.asarray(colours.convert("RGB"), dtype=int)).max()
    return transform if change > _STEP else None


def _bits_per_channel(image: ImageFile.ImageFile) -> int:
    """8 (or less), 16 or 32. Pillow opens 16-bit colour as 8-bit "RGB" without a word: only the raw mode tells."""
    arguments = image.tile[0][3] if image.tile else None
    if image.format == "PPM" and image.mode != "F":  # arguments: (raw mode, largest value) where that is not 255
        largest = arguments[1] if isinstance(arguments, tuple) and isinstance(arguments[1], int) else 255
        return 16 if largest > 255 or image.mode == "I" else 8
    if image.format in ("PNG", "TIFF") and ";16" in str(arguments):
        return 16
    return 32 if image.mode in ("I", "F") else 8
