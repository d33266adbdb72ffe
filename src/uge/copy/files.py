"""The files of a copy: lossless PNG, names that every file system takes, folders that appear whole or not at all."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uge.data.images import ImageSet, batch_of
from uge.errors import PublishError
from uge.runtime import check_writable

T = TypeVar("T")
# A perturbation is noise to a compressor: it finds nothing to repeat, and searching would cost a quarter more time for
# files 0.1% to 0.5% smaller. What runs there are, black margins say, it finds.
COMPRESSION = {"compress_level": 6, "compress_type": zlib.Z_RLE}
LONGEST_NAME = 255  # bytes, of file systems everywhere
PNG_ERRORS = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


def png_bytes(image: Tensor) -> bytes:
    """uint8 [C, H, W] -> PNG with pixels and nothing else: no text, no time."""
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG", **COMPRESSION)
    return buffer.getvalue()


def read_png(data: bytes) -> Tensor:
    """PNG -> uint8 [1 or 3, H, W]; raises one of PNG_ERRORS."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        if picture.mode not in ("L", "RGB"):
            raise ValueError(f"PNG mode {picture.mode}, expected 8-bit gray or RGB")
        array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


def image_in(path: Path) -> Tensor | None:
    """The image of a PNG file, uint8 [1 or 3, H, W]; None if it holds none."""
    try:
        return read_png(path.read_bytes())
    except PNG_ERRORS:
        return None


def in_batches(images: Iterable[tuple[T, Tensor]]) -> Iterator[tuple[list[T], Tensor]]:
    """Images of one size together, [B, C, H, W], as many as `batch_of` says, each with what came with it."""
    kept: list[tuple[T, Tensor]] = []
    for each in images:
        if kept and (each[1].shape != kept[0][1].shape or len(kept) >= batch_of(each[1].shape)):
            yield [what for what, _ in kept], torch.stack([image for _, image in kept])
            kept = []
        kept.append(each)
    if kept:
        yield [what for what, _ in kept], torch.stack([image for _, image in kept])


def safe_name(name: str) -> str:
    """A file name that every file system and data loader takes: no separators, no control characters, not hidden.

    `datasets` also passes over folders whose names begin with two underscores.
    """
    return re.sub(r"[^\w .,+&'()@=-]", "-", name).strip(" ._") or "-"


def files_of(images: ImageSet) -> tuple[str, ...]:
    """The published path "train/<class>/<id>.png" of every image: its own name, made safe for any file system.

    Raises:
        PublishError: two classes or two images would share a path, or a class has no image.
    """
    folders = [safe_name(name) for name in images.class_names]
    owners: dict[str, str] = {}
    for folder, name in zip(folders, images.class_names, strict=True):
        if owners.setdefault(folder, name) != name:
            raise PublishError(f"classes {owners[folder]!r} and {name!r} would share the folder '{folder}'; rename one")
    empty = sorted(set(range(images.classes)) - set(images.labels.tolist()))
    if empty:  # ImageFolder numbers the folders it finds: without this one, every later label would shift
        raise PublishError(f"class {images.class_names[empty[0]]!r} has no image; leave the class out or add images")
    files: dict[str, str] = {}
    for name, label in zip(images.names, images.labels.tolist(), strict=True):
        own = name.removeprefix(images.class_names[label] + "/").removeprefix(folders[label] + "/")
        file = f"train/{folders[label]}/{safe_name(own)}.png"
        if long := next((part for part in file.split("/") if len(part.encode()) > LONGEST_NAME), None):
            raise PublishError(f"a file called {long[:40]}... would have too long a name; rename {name[:40]}...")
        if file in files:
            raise PublishError(f"images {files[file]!r} and {name!r} would both become {file}; rename one")
        files[file] = name
    return tuple(files)


def check_target(out: Path | str) -> None:
    """Refuse a target that holds something already; ask before a long run, what writes it asks again.

    Raises:
        PublishError: `out` is a file, a folder that is not empty, or cannot be looked at or written.
    """
    out = Path(out)
    try:
        if out.exists() and not out.is_dir():
            raise PublishError(f"{out} is a file; give a new folder as --out")
        if out.is_symlink() or os.path.ismount(out):
            raise PublishError(
                f"{out} is a link or a mount point, which a new folder cannot replace; give one below it"
            )
        if out.exists() and any(out.iterdir()):
            raise PublishError(f"{out} is not empty; give a new folder as --out, or remove it")
    except OSError as error:
        raise PublishError(f"cannot write {out}: {error.strerror or error}") from error
    check_writable(out)


@contextmanager
def new_folder(out: Path, *, private: bool = False) -> Iterator[Path]:
    """A folder to fill beside `out`, renamed to it at the end; after any failure nothing of it stays.

    Args:
        out: the folder to make; may exist if it is empty.
        private: readable by its owner only.

    Raises:
        PublishError: the disk is full or read-only.
    """
    out = Path(os.path.abspath(out))  # "." has no name of its own
    workplace: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        folder = workplace / out.name  # made by mkdir, so with the user's own permissions, not mkdtemp's
        folder.mkdir(mode=0o700 if private else 0o777)
        yield folder
        os.replace(folder, out)
    except OSError as error:
        raise PublishError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if workplace is not None:
            shutil.rmtree(workplace, ignore_errors=True)


def write_images(images: ImageSet, out: Path | str) -> None:
    """PNG files out/train/<class>/<id>.png and nothing else: a private folder that any program reads.

    Raises:
        PublishError: `out` is not empty, or cannot be written.
    """
    check_target(out)
    with new_folder(Path(out), private=True) as folder:
        for file, image in zip(files_of(images), images.images, strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(png_bytes(image))
