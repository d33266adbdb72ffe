"""Images that come decoded: NumPy archives, read image by image, and the embedded images."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from uge.data.entries import Entries, Entry, Limits, Pixels, Source, classes_of, error_line, is_hidden, some_names
from uge.data.files import open_zip
from uge.data.layout import split_of
from uge.errors import DataError

EMBEDDED = {
    "eurosat": (
        "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial",
        "Pasture", "PermanentCrop", "Residential", "River", "SeaLake",
    ),
}  # fmt: skip
"""Images that travel inside the package: name -> class names. Built by tools/build_eurosat.py."""

_IMAGES, _LABELS = ("x", "images", "image"), ("y", "labels", "label")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _Archive:
    """The arrays of an .npz, by their `names`: their shapes before anything is read, and never a pickle."""

    def __init__(self, path: Path, stack: ExitStack, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.zip = open_zip(path, stack, limits)
        self.names = [name.removesuffix(".npy") for name in self.zip.namelist() if name.endswith(".npy")]

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], bool, np.dtype[Any]]]:
        """The stream of an array behind its header, its shape, whether columns come first, and its type.

        Raises:
            DataError: its header is damaged, promises more than the file holds, or is that of a pickle.
        """
        with ExitStack() as stack:
            with self._reading(f"the array {name}"):
                stream = stack.enter_context(self.zip.open(f"{name}.npy"))
                shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
            if dtype.hasobject:
                raise DataError(
                    f"{self.path}: the array {name} cannot be read (it is a pickle); write it without objects"
                )
            asked, held = math.prod(shape) * dtype.itemsize, self.zip.getinfo(f"{name}.npy").file_size
            if min(shape, default=0) < 0 or asked > held:
                raise DataError(
                    f"{self.path}: the array {name} asks for {asked:,} bytes, its file holds {held:,}; write it again"
                )
            yield stream, shape, fortran, dtype

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """A whole array, for labels and names.

        Raises:
            DataError: as in `opened`, or it is larger than a file may be.
        """
        with self.opened(name) as (stream, shape, _, dtype):
            self.limits.check(f"{self.path}: the array {name}", pixels=-(-math.prod(shape) * dtype.itemsize // 4))
            with self._reading(f"the array {name}"):
                stream.seek(0)
                return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

    def images(self, name: str) -> Iterator[Pixels]:
        """The items of an array of images one by one, [H, W] or [H, W, C > 1].

        Raises:
            DataError: it ends early or is damaged, and so is all that follows.
        """
        with self.opened(name) as (stream, shape, fortran, _):
            first = len(shape) == 4 and shape[-1] not in (1, 3, 4)
            if fortran:  # its first axis is the fastest: there is no reading it image by image
                yield from (_channels_last(each, first) for each in self.read(name))
                return
            self.limits.check(f"{self.path}: {name}[0]", pixels=math.prod(shape[1:3]))
            size = math.prod(shape[1:])
            for number in range(shape[0]):
                with self._reading(f"{name}[{number}]"):
                    content = stream.read(size)
                if len(content) < size:
                    raise DataError(f"{self.path}: {name} ends before image {number}; write it again")
                yield _channels_last(np.frombuffer(content, np.uint8).reshape(shape[1:]), first)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Damaged bytes and headers, which are text that is parsed, raise errors of every type: all are told as one."""
        try:
            yield
        except Exception as error:
            raise DataError(f"{self.path}: {what} cannot be read ({error_line(error)}); write it again") from error


def npz_source(path: Path, stack: ExitStack, limits: Limits) -> Source:
    """Arrays of a NumPy archive: images and labels, x_train and y_train, or train_images and train_labels.

    Raises:
        DataError: the file is damaged, or holds no images with one label each.
    """
    archive = _Archive(path, stack, limits)
    images, labels = _by_split(archive.names, _IMAGES), _by_split(archive.names, _LABELS)
    if not images or images.keys() - labels.keys():
        missing = ", ".join(sorted(images.keys() - labels.keys()))
        need = f"labels of {missing} as well" if missing else "images and labels, or x_train and y_train"
        raise DataError(f"{path} holds the arrays {some_names(archive.names)}; expected {need}")
    values = {split: _labels(archive, labels[split], images[split]) for split in images}
    named = next((name for name in archive.names if name.lower() in ("class_names", "label_names")), None)
    names = None if named is None else archive.read(named).reshape(-1).tolist()
    unlabelled = {split: len(each) for split, each in values.items() if each and all(map(is_hidden, each))}
    every = (value for split, each in values.items() if split not in unlabelled for value in each)
    class_names, label_of = classes_of(every, names, str(path))

    def entries(split: str) -> Iterator[Entry]:
        for number, (pixels, value) in enumerate(zip(archive.images(images[split]), values[split], strict=True)):
            where = f"{path}: {images[split]}[{number}]"
            position = label_of(value, where)
            yield Entry(f"{class_names[position]}/{number:05d}", position, where, partial(np.asarray, pixels))

    used = {*images.values(), *(labels[split] for split in images), named}
    rest = [name for name in archive.names if name not in used]
    notes = (f"{path}: {len(rest)} other arrays passed over: {some_names(rest)}",) if rest else ()
    splits = {split: Entries(partial(entries, split)) for split in images if split not in unlabelled}
    return Source(class_names, splits, unlabelled, notes)


def _by_split(names: list[str], words: tuple[str, ...]) -> dict[str, str]:
    """Split -> the array that is called as one of `words`, alone ("images", all is train) or with a split."""
    found: dict[str, str] = {}
    for name in names:
        parts = re.split(r"[_\-. ]", name.lower())
        split = next((split_of(part) for part in parts if split_of(part)), None)
        rest = [part for part in parts if not split_of(part)]
        if len(rest) == 1 and rest[0] in words and len(parts) <= 2:
            found.setdefault(split or "", name)
    if list(found) == [""]:
        return {"train": found[""]}
    return {split: name for split, name in found.items() if split}


def _labels(archive: _Archive, name: str, images: str) -> list[Any]:
    """One label an image, from an array [N] or [N, 1]; `images` is the array that they belong to."""
    with archive.opened(images) as (_, shape, _, dtype):
        if dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and {shape[1], shape[-1]} & {1, 3, 4})):
            raise DataError(
                f"{archive.path}: {images} is {dtype} {list(shape)};"
                " expected uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]"
            )
    values = archive.read(name)
    if values.ndim == 0 or math.prod(values.shape[1:]) != 1:
        raise DataError(
            f"{archive.path}: {name} is {list(values.shape)}, several labels an image; expected [N], one label each"
        )
    if len(values) != shape[0]:
        raise DataError(f"{archive.path}: {images} holds {shape[0]} images, but {name} {len(values)} labels")
    return values.reshape(-1).tolist()


def _channels_last(pixels: Pixels, first: bool) -> Pixels:
    """uint8 [H, W], [H, W, C] or, with `first`, [C, H, W] -> [H, W] or [H, W, C > 1]."""
    pixels = pixels.transpose(1, 2, 0) if first else pixels
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def read_embedded(name: str) -> Source:
    """The embedded grid of tiles: rows of 32x32 colour images, class after class, equally many of each."""
    class_names = EMBEDDED[name]

    def entries(split: str) -> Iterator[Entry]:
        with (
            resources.files("uge.data").joinpath("embedded", f"{name}-{split}.webp").open("rb") as file,
            Image.open(file) as grid,
        ):
            rows, columns = grid.height // 32, grid.width // 32
            tiles = np.asarray(grid).reshape(rows, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
        per_class = len(tiles) // len(class_names)
        for number, pixels in enumerate(tiles):
            label, place = divmod(number, per_class)
            where = f"{name}: {split} image {number}"
            yield Entry(f"{class_names[label]}/{place:04d}", label, where, partial(np.asarray, pixels))

    return Source(class_names, {split: Entries(partial(entries, split)) for split in ("train", "test")})
