"""The images of one split: every entry decoded, as large as is wanted, in one array."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uge.data.decoding import UnreadableImage, centre_cut, decode, squeezed
from uge.data.entries import Entry, Limits, Pixels, Source, some_names
from uge.data.images import ImageSet, check_class_names
from uge.errors import DataError


class OwnSizesError(Exception):
    """The images are not all of one small size."""


@dataclass(frozen=True)
class How:
    """How entries are decoded; as for `load`. Of larger ones than `most_side`, or mixed, `OwnSizesError` is raised."""

    image_size: tuple[int, int] | None
    cut: bool
    convert: bool
    skip_bad: bool
    limits: Limits
    most_side: int = 0
    least_classes: int = 2


@dataclass(frozen=True)
class Decoded:
    """What came of the entries of a split.

    Attributes:
        images: those that could be read; `numbers`: their places among the entries.
        sizes: (height, width) of each before it was resized.
        notes: what is to be said.
    """

    images: ImageSet
    numbers: list[int]
    sizes: list[tuple[int, int]]
    notes: list[str]


def decoded(found: Source, entries: Iterable[Entry], source: str, how: How) -> Decoded:
    """Read the images of these entries, none of which need be held: their names and labels are enough.

    The pixels uint8 [N, C, H, W] lie in a nameless temporary file that is mapped into memory: the system keeps there
    what it has room for and reads the rest again, so that images may take more space than there is memory. What is
    written to the tensor stays in memory alone.
    """
    check_class_names(found.class_names)
    names: list[str] = []
    labels: list[int] = []
    numbers: list[int] = []
    sizes: list[tuple[int, int]] = []  # before resizing
    skipped: list[str] = []
    conversions: Counter[str] = Counter()
    first_of: dict[int, str] = {}  # channels -> the first image that has them
    grays = 0
    beginning, size = "", (0, 0)  # of the first image
    with scratch_file() as file:
        for number, entry, pixels, own_size in _readable(entries, how, conversions, skipped):
            height, width = pixels.shape[:2]
            if not numbers:
                beginning, size = entry.where, (height, width)
            if how.most_side and ((height, width) != size or max(size) > how.most_side):
                raise OwnSizesError
            if (height, width) != size:
                raise DataError(
                    f"mixed sizes: {beginning} is {size[0]}x{size[1]} (height x width), {entry.where} is"
                    f" {height}x{width}; make them one size, as uge protect --image-size does"
                )
            pixels = as_channels(pixels)
            grays += len(pixels) == 1
            first_of.setdefault(len(pixels), entry.where)
            if len(first_of) == 2:
                if not how.convert:
                    raise DataError(
                        f"mixed colours: {first_of[1]} is gray, {first_of[3]} is RGB; --convert makes all RGB"
                    )
                if len(pixels) == 3 and grays == len(numbers):  # the first RGB image: widen all before it
                    widen(file, len(numbers), height * width)
                pixels = np.broadcast_to(pixels, (3, height, width))
            file.write(pixels.tobytes())
            names.append(entry.name)
            labels.append(entry.label)
            numbers.append(number)
            sizes.append(size if own_size == size else own_size)  # one object where all are of one size
            how.limits.check(source, bytes=pixels.size * len(numbers), files=len(numbers))

        count = len(numbers)
        if not count:
            bad = f": {len(skipped)} cannot be read, such as {skipped[0]}" if skipped else ""
            raise DataError(f"{source} holds no readable image in this split{bad}; give other images")
        file.flush()
        images = np.memmap(file, np.uint8, mode="c", shape=(count, max(first_of), *size))
    present = sorted(set(labels))
    if len(present) < how.least_classes:
        only = found.class_names[present[0]]
        raise DataError(f"{source} has one class only ({only!r}); expected at least two, each a folder of images")
    if len(set(names)) < count:  # rows only: names of files were checked when they were listed
        names = [f"{found.class_names[label]}/{row:05d}" for row, label in enumerate(labels)]
    if len(first_of) == 2:
        conversions["brought from gray to RGB"] = grays
    notes = [f"{some} of {count} images {what}" for what, some in conversions.items()]
    if skipped:
        total = len(skipped) + count
        notes.insert(0, f"passed over {len(skipped)} unreadable of {total} images: {some_names(skipped)}")
    split = ImageSet(torch.from_numpy(images), torch.tensor(labels), found.class_names, tuple(names))
    return Decoded(split, numbers, sizes, notes)


def _readable(
    entries: Iterable[Entry], how: How, conversions: Counter[str], skipped: list[str]
) -> Iterator[tuple[int, Entry, Pixels, tuple[int, int]]]:
    """The entries that can be read, with their places, pixels [H, W] or [H, W, 3], and sizes before resizing."""
    for number, entry in enumerate(entries):
        try:
            pixels, own_size = pixels_of(entry.read(), entry.where, how, conversions)
        except UnreadableImage:
            if not how.skip_bad:
                raise
            skipped.append(entry.where)
        else:
            yield number, entry, pixels, own_size


@contextmanager
def scratch_file() -> Iterator[IO[bytes]]:
    """A file for images that are being read; it goes with its last user, and errors name the disk it lies on."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        raise DataError(
            f"no room for the images in {tempfile.gettempdir()} ({error.strerror}); point TMPDIR at a larger disk"
        ) from error


def widen(file: IO[bytes], count: int, gray: int) -> None:
    """Write the gray images of a file, of so many bytes each, as RGB in their place, the last one first."""
    for number in reversed(range(count)):
        file.seek(number * gray)
        pixels = file.read(gray)
        file.seek(number * 3 * gray)
        file.write(3 * pixels)
    file.seek(0, os.SEEK_END)


def as_channels(pixels: Pixels, channels: int = 0) -> Pixels:
    """[H, W] or [H, W, C] -> [C, H, W], gray ones in as many channels as are wanted."""
    planes = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    return np.broadcast_to(planes, (max(channels, len(planes)), *planes.shape[1:]))


def pixels_of(
    content: bytes | Pixels, where: str, how: How, conversions: Counter[str]
) -> tuple[Pixels, tuple[int, int]]:
    """The 8-bit pixels [H, W] (gray) or [H, W, 3] of what an entry holds, in the wanted size, and (height, width)."""
    if isinstance(content, bytes):
        image = decode(content, where, convert=how.convert, conversions=conversions, limits=how.limits)
    elif content.shape[2:] in ((), (3,)) and how.image_size in (None, content.shape[:2]):
        return content, (content.shape[0], content.shape[1])  # most arrays: spare them the way through Pillow
    else:
        array = Image.fromarray(np.ascontiguousarray(content))
        image = decode(array, where, convert=how.convert, conversions=conversions)
    resize = centre_cut if how.cut else squeezed
    seen = image if how.image_size is None else resize(image, how.image_size)
    return np.asarray(seen), (image.height, image.width)


def own_image(content: bytes | Pixels, where: str, how: How, size: tuple[int, int], channels: int) -> Tensor:
    """What an entry holds at its own size, uint8 [C, H, W].

    Raises:
        DataError: it has changed since the source was opened, when its (height, width) were `size`.
    """
    pixels, _ = pixels_of(content, where, how, Counter())
    if pixels.shape[:2] != size:
        raise DataError(f"{where}: has changed since it was first read; begin again")
    return torch.from_numpy(np.ascontiguousarray(as_channels(pixels, channels)))
