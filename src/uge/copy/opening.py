"""From a copy, a part of one or a single file to the recipient's images, as a plain class folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from uge.copy.files import Tree, image_in, in_batches, png_bytes
from uge.copy.manifest import CARD, MANIFEST, SIGNATURE, SUMS, read_manifest
from uge.data import DataWarning
from uge.data.images import pixel_sha256
from uge.durable import check_target, new_folder
from uge.errors import KeyFileError, PublishError
from uge.keys import Key

MOST_NAMED = 3  # files in one line

Place = tuple[Path, str]  # a file, and where its image goes below OUT


def open_copy(source: Path | str, key: Key, out: Path | str, *, skip_bad: bool = False) -> int:
    """Write the recipient's images as PNG files that any training program reads: OUT/train/<class>/<name>.png.

    Everything that opens an image is inside the image, so files may be renamed, moved, and be part of a copy only.

    Args:
        source: a copy, whose manifest must then be signed by the key's protector and gives names and labels; a PNG
            file, written as OUT/<name>.png; or a folder of PNG files, whose class is the name of their folder.
        key: the recipient's.
        out: a new folder, private to its owner.
        skip_bad: leave out what does not open, and name it in a `DataWarning`.

    Returns:
        How many images were written.

    Raises:
        PublishError: a file does not open: of another key, changed, or no published PNG. Nothing is written then.
        KeyFileError: a key that opens nothing, because its network sees the copy as it is.
    """
    source, out = Path(source), Path(out)
    if not key.opens:
        raise KeyFileError(f"the network of this key sees the copy as it is; train on {source} itself ('uge train')")
    check_target(out)
    bad: list[Path] = []
    missing: list[Path] = []
    written = 0
    signed = _is_copy(source)
    with new_folder(out, private=True) as folder:
        for files, copies in in_batches(_signed(source, key, missing, bad) if signed else _loose(source, bad)):
            views, opened = open_each(key, copies)
            for (path, name), view, good in zip(files, views, opened.tolist(), strict=True):
                if not good:
                    bad.append(path)
                    continue
                (folder / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with (folder / name).open("xb") as file:  # two files of one name are an error, not one file
                    file.write(png_bytes(view))
                written += 1
        if not written and not bad:
            raise PublishError(f"{source} holds no PNG file; give a copy, a part of one or a single file")
        if bad:
            told = _told(bad, written + len(bad), "do not open with this key: another key's, changed, or no copy's PNG")
            if not skip_bad or not written:
                raise PublishError(f"{told}; nothing was written")
            warnings.warn(DataWarning(f"{told}; left out"), stacklevel=2)
        elif missing:
            told = _told(missing, written + len(missing), "of the manifest are not there")
            warnings.warn(DataWarning(told), stacklevel=2)
        elif source.is_dir() and not signed:
            warnings.warn(
                DataWarning("labels are those of the folders: without a manifest nobody signs them"), stacklevel=2
            )
    return written


def open_each(key: Key, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Open every letter that opens.

    Args:
        key: one that opens.
        copies: uint8 [B, C, H, W].

    Returns:
        Views uint8 [B, C, H, W], zeros where a letter does not open; and which ones do, bool [B].
    """
    try:
        return key.opened(copies), torch.ones(len(copies), dtype=torch.bool)
    except PublishError:
        if len(copies) == 1:
            return torch.zeros_like(copies), torch.zeros(1, dtype=torch.bool)
    halves = [open_each(key, half) for half in copies.tensor_split(2)]
    return torch.cat([views for views, _ in halves]), torch.cat([opened for _, opened in halves])


def _told(files: list[Path], of: int, what: str) -> str:
    named = ", ".join(map(str, files[:MOST_NAMED])) + (" ..." if len(files) > MOST_NAMED else "")
    return f"{len(files)} of {of} images {what} ({named})"


def _is_copy(source: Path) -> bool:
    """Whether a folder is a copy, or what is left of one: then names and labels are the signed ones, or none."""
    return source.is_dir() and any((source / name).exists() for name in (MANIFEST, SIGNATURE, SUMS, CARD))


def _signed(folder: Path, key: Key, missing: list[Path], bad: list[Path]) -> Iterator[tuple[Place, Tensor]]:
    """The published files of a copy, wherever they were moved inside it, under the names that its manifest has.

    Files of the manifest that are not there go to `missing`, what is not in the manifest goes to `bad`.

    Raises:
        PublishError: it has no manifest that is signed by the key's protector.
    """
    manifest = read_manifest(folder, signed_by=key.fingerprint)
    left: dict[str, list[str]] = {}
    for entry in reversed(manifest.images):
        left.setdefault(entry.sha256, []).append(entry.file)
    for path in Tree.of(folder).pngs:
        image = image_in(path)
        if image is not None and (names := left.get(pixel_sha256(image))):
            yield (path, names.pop()), image
        else:
            bad.append(path)
    missing += [Path(name) for names in left.values() for name in names]


def _loose(source: Path, bad: list[Path]) -> Iterator[tuple[Place, Tensor]]:
    """Files without a manifest: their class is what their folder says; what is no image goes to `bad`.

    Raises:
        PublishError: there is no such file or folder.
    """
    if not source.exists():
        raise PublishError(f"{source} does not exist; give a copy, a part of one or a single PNG file")
    for path in Tree.of(source).pngs if source.is_dir() else [source]:
        place = path.relative_to(source.parent if path == source else source).with_suffix(".png")
        name = place.as_posix().removeprefix("train/")
        if (image := image_in(path)) is None:
            bad.append(path)
        else:
            yield (path, f"train/{name}" if "/" in name else name), image
