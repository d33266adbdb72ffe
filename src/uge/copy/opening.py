"""From a copy, a part of one or a single file to the recipient's images, as a plain class folder."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from uge.copy.chunks import Done, cut, work_through
from uge.copy.files import CopyTree, in_batches, png_bytes
from uge.copy.forms import MOST_VALUES, Place, image_in, places_of
from uge.copy.manifest import CARD, MANIFEST, SIGNATURE, SUMS, Manifest, read_manifest
from uge.data import DataWarning
from uge.data.images import pixel_sha256
from uge.durable import check_target, claimed, move_into_place, remove_folder, sync_files
from uge.errors import KeyFileError, PublishError, UgeError, told_as
from uge.keys import Key
from uge.records import config_hash
from uge.runners import Runner

MOST_NAMED = 3  # files in one line
OPENED, DONE = "opened", "done"  # in the work folder: the images, and what became of the files
LOSSY = (".jpg", ".jpeg")
LAST = (OPENED, "run")  # that go from the work folder, so that it never looks as if its images were at OUT


class Wanted(NamedTuple):
    """Where an image may lie.

    Attributes:
        place: the file, or the row of a shard.
        values: of the image, about.
        name: where its image goes below OUT; "" where only its pixels can tell.
        sha256: `pixel_sha256` of the image of that name; "" for any.
    """

    place: Place
    values: int
    name: str
    sha256: str


@dataclass
class _Found:
    """What became of them.

    Attributes:
        written: how many images were.
        bad: files that do not open.
        strays: files that hold another image than their name says, each with its `pixel_sha256`.
    """

    written: int = 0
    bad: list[Place] = field(default_factory=list)
    strays: list[tuple[Wanted, str]] = field(default_factory=list)

    def take_in(self, files: Sequence[Wanted], result: Done) -> None:
        """Add what `_open_files` says of these files."""
        self.written += result["written"]
        self.bad += [files[at].place for at in result["bad"]]
        self.strays += [(files[at], sha256) for at, sha256 in result["strays"]]


def open_copy(
    source: Path | str, key: Key, out: Path | str, *, skip_bad: bool = False, runner: Runner | None = None
) -> int:
    """Write the recipient's images as PNG files that any training program reads: OUT/train/<class>/<name>.png.

    Everything that opens an image is inside the image, so files may be renamed, moved, and be part of a copy only.
    Work in progress lies in `OUT.partial`, as private as the originals, and the same call goes on from it.

    Args:
        source: a copy, whose manifest must then be signed by the key's protector and gives names and labels; a PNG
            file, written as OUT/<name>.png; or a folder of PNG files, whose class is the name of their folder.
        key: the recipient's.
        out: a new folder, private to its owner.
        skip_bad: leave out what does not open, and name it in a `DataWarning`.
        runner: opens many images; without one this process does.

    Returns:
        How many images were written.

    Raises:
        PublishError: a file does not open: of another key, changed, or no published PNG. Nothing is written then.
        KeyFileError: a key that opens nothing, because its network sees the copy as it is.

    Example:
        >>> uge.open_copy("copy", recipient, "opened")
        12
        >>> uge.load("opened").images.equal(images.images & 0xFE)  # all but the lowest bit
        True
    """
    source, out = Path(source), Path(os.path.abspath(out))
    if not key.opens:
        raise KeyFileError(f"the network of this key sees the copy as it is; train on {source} itself ('uge train')")
    work = out.with_name(f"{out.name}.partial")
    if not _was_opened(work, out):
        check_target(out)
    # A copy, or what is left of one: then names and labels are the signed ones, or none.
    signed = source.is_dir() and any((source / name).exists() for name in (MANIFEST, SIGNATURE, SUMS, CARD))
    manifest = read_manifest(source, signed_by=key.fingerprint) if signed else None
    files = _in_copy(source, manifest) if manifest else _loose(source)
    published = {entry.file: entry.sha256 for entry in manifest.images} if manifest else {}
    listed = [(str(each.place), each.name, each.sha256) for each in files]
    content = config_hash({"files": listed, "key": key.digest()})
    with claimed(work, "run", content, "an unfinished opening", "files or key"):
        if not _was_opened(work, out):
            with told_as(PublishError, f"cannot write {out}"):
                found, missing = _open_all(files, published, key, work, runner)
                try:
                    _tell(found, missing, source, signed, skip_bad)
                except UgeError:
                    remove_folder(work, last=LAST)
                    raise
                move_into_place(work / OPENED, out)
        remove_folder(work, last=LAST)
    return len(CopyTree.of(out).pngs)


def _was_opened(work: Path, out: Path) -> bool:
    """Whether a run ended between its images, which are whole, and its work folder."""
    return out.exists() and (work / DONE).exists() and not (work / OPENED).exists()


def _open_all(
    files: Sequence[Wanted], published: dict[str, str], key: Key, work: Path, runner: Runner | None
) -> tuple[_Found, list[str]]:
    """Fill the folder of opened images; what was found, and names of published images that were not."""
    folder, found = work / OPENED, _Found()
    folder.mkdir(mode=0o700, exist_ok=True)
    numbers = cut((each.values for each in files), MOST_VALUES) if files else []
    parts = [files[each.start : each.stop] for each in numbers]
    results = work_through(
        len(parts), parts.__getitem__, partial(_open_files, key.recipients_part(), folder), work / DONE, runner
    )
    for part, result in zip(parts, results, strict=True):
        found.take_in(part, result)
    if not published:
        return found, []
    lost = {wanted.name for wanted, _ in found.strays} | (published.keys() - {wanted.name for wanted in files})
    left: dict[str, list[str]] = {}
    for name in filter(lost.__contains__, published):
        left.setdefault(published[name], []).append(name)
    strays, found.strays = found.strays, []
    for stray, sha256 in strays:
        if names := left.get(sha256):
            moved = [stray._replace(name=names.pop(0), sha256=sha256)]
            found.take_in(moved, _open_files(key, folder, moved))
        else:
            found.bad.append(stray.place)
    return found, [name for names in left.values() for name in names]


def _open_files(key: Key, folder: Path, files: Sequence[Wanted]) -> Done:
    """Write the images of files that open below `folder`; how many, and which files are bad or strays."""
    bad: list[int] = []
    strays: list[tuple[int, str]] = []
    written: list[Path] = []

    def images() -> Iterator[tuple[int, Tensor]]:
        for at, wanted in enumerate(files):
            if (image := image_in(wanted.place)) is None:
                bad.append(at)
            elif (wanted.name and not wanted.sha256) or (sha256 := pixel_sha256(image)) == wanted.sha256:
                yield at, image
            else:
                strays.append((at, sha256))

    for numbers, copies in in_batches(images()):
        views, opened = key.open_each(copies)
        for at, view, good in zip(numbers, views, opened.tolist(), strict=True):
            if good:
                written.append(folder / files[at].name)
                written[-1].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                written[-1].write_bytes(png_bytes(view))
            else:
                bad.append(at)
    sync_files(written)
    return {"written": len(written), "bad": sorted(bad), "strays": strays}


def _tell(found: _Found, missing: Sequence[str], source: Path, signed: bool, skip_bad: bool) -> None:
    """Refuse or warn of what does not open or is not there.

    Raises:
        PublishError: there is nothing, or something that does not open and is not to be passed over.
    """
    if not found.written and not found.bad:
        raise PublishError(
            f"{source} holds no PNG file (JPEG loses letters); give a copy, a part of one or a single file"
        )
    told = ""
    if found.bad:
        why = "do not open with this key: another key's, changed, or no copy's PNG"
        told = _named(found.bad, found.written + len(found.bad), why)
        if not skip_bad or not found.written:
            raise PublishError(f"{told}; nothing was written")
        told += "; left out"
    elif missing:
        told = _named(missing, found.written + len(missing), "of the manifest are not there")
    elif source.is_dir() and not signed:
        told = "labels are those of the folders: without a manifest nobody signs them"
    if told:
        warnings.warn(DataWarning(told), stacklevel=3)


def _named(files: Sequence[Place | str], of: int, what: str) -> str:
    named = ", ".join(map(str, files[:MOST_NAMED])) + (" ..." if len(files) > MOST_NAMED else "")
    return f"{len(files)} of {of} images {what} ({named})"


def _in_copy(folder: Path, manifest: Manifest) -> list[Wanted]:
    """The images of a copy, wherever they were moved inside it."""
    entries = {entry.file: entry for entry in manifest.images}
    found = []
    for name, place in places_of(CopyTree.of(folder), manifest).items():
        if entry := entries.get(name):
            found.append(Wanted(place, math.prod(manifest.shape_of(entry)), name, entry.sha256))
        elif name.lower().endswith(".png"):
            found.append(Wanted(place, math.prod(manifest.shape), "", ""))
    return found


def _loose(source: Path) -> list[Wanted]:
    """Files without a manifest: their class is what their folder says.

    Raises:
        PublishError: there is no such file or folder, or two of its files would be written as one.
    """
    if not source.exists():
        raise PublishError(f"{source} does not exist; give a copy, a part of one or a single PNG file")
    if source.suffix.lower() in LOSSY and source.is_file():
        raise PublishError(f"{source} is a JPEG file, which has lost its letter; get the PNG file that was published")
    found: dict[str, Path] = {}
    for path in CopyTree.of(source).pngs if source.is_dir() else [source]:
        place = path.relative_to(source.parent if path == source else source).with_suffix(".png")
        name = place.as_posix().removeprefix("train/")
        name = f"train/{name}" if "/" in name else name
        if (other := found.setdefault(name, path)) != path:
            raise PublishError(f"{other} and {path} would both be written as {name}; open one of their folders alone")
    return [
        Wanted(Place(path), os.path.getsize(path) if os.path.exists(path) else 0, name, "")  # a broken link has no size
        for name, path in found.items()
    ]
