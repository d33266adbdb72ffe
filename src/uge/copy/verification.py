"""Whether a published folder is what its protector made."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from uge.copy.chunks import Result, cut, work_through
from uge.copy.files import (
    CHUNKS,
    PNG_ERRORS,
    Tree,
    chunks_of,
    files_of,
    in_batches,
    read_bytes,
    read_png,
    read_text,
    what_became_of,
)
from uge.copy.forms import MOST_VALUES, Place, places_of
from uge.copy.manifest import (
    ATTRIBUTES,
    CARD,
    MANIFEST,
    SIGNATURE,
    SUMS,
    Manifest,
    PublishedImage,
    Shard,
    read_manifest,
)
from uge.copy.opening import open_each
from uge.copy.reading import files_by_pixels
from uge.copy.shards import read_shard
from uge.data import Photographs
from uge.data.entries import Pixels
from uge.data.images import ImageSet, class_difference, pixel_sha256
from uge.errors import PublishError
from uge.keys import Key
from uge.runners import Runner

MOST_NAMED = 5  # files with the same problem that get a line each


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        problems: one line each; empty if all is well.
        images: entries of the manifest.
        epsilon_255: the largest change measured against the originals, in steps of 1/255; None without originals
            of the same names.
        signature: "valid", "wrong", "none", or "not checked" without a key.
        letters: images that opened with the key; None without a key that opens, or without its signature.
        views: images that opened to the very view of their original; None without originals, too.
        notes: what others changed around the images, without harm; one line a kind.
    """

    problems: tuple[str, ...]
    images: int
    epsilon_255: int | None = None
    signature: str = "not checked"
    letters: int | None = None
    views: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    folder: Path | str,
    *,
    clean: ImageSet | Photographs | None = None,
    key: Key | None = None,
    runner: Runner | None = None,
) -> Verification:
    """Check a published folder against its manifest, its sums and, where given, the originals and a key.

    Args:
        folder: a published folder.
        clean: the originals, paired with the copies by name, to measure epsilon and to check the labels.
        key: whose fingerprint the signature must match, and which must open every letter. Together with `clean` it
            shows that the recipient sees in the copy what he would see in the originals.
        runner: looks at many images; without one this process does.

    Returns:
        Every problem found, in one line each.

    Raises:
        PublishError: there is no manifest to check against.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    signature, problems = _signature(folder, key)
    files = _Files(folder, manifest)
    files.check_companions()
    originals = {} if clean is None else _readers(clean)
    opener = key.recipients_part() if key is not None and key.opens and signature == "valid" else None
    seen = _look_at_all(files.images(), originals, opener, runner)
    files.tell_of(seen)
    problems += files.problems() + seen.problems(len(manifest.images), opener)
    if clean is not None:
        problems += _against_originals(manifest, clean.small, originals, seen, whole=not problems)
    return Verification(
        tuple(problems),
        len(manifest.images),
        seen.largest if seen.compared else None,
        signature,
        seen.opened if opener else None,
        seen.identical if opener and clean is not None else None,
        files.notes(),
    )


def _readers(clean: ImageSet | Photographs) -> dict[str, Callable[[], Tensor]]:
    """What reads the original of each published file."""
    return {file: partial(clean.own, number) for number, file in enumerate(files_of(clean.small))}


def _signature(folder: Path, key: Key | None) -> tuple[str, list[str]]:
    """The state of the signature, and its problem."""
    signed = (folder / SIGNATURE).exists()
    if key is None:
        return "not checked" if signed else "none", []
    try:
        read_manifest(folder, signed_by=key.fingerprint)
    except PublishError as error:
        return "wrong" if signed else "none", [f"signature: {error}"]
    return "valid", []


class _Files:
    """The files of a folder, against manifest and sums."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.tree = Tree.of(folder)
        self.places = places_of(self.tree, manifest)
        self.files = set(manifest.files)
        self.sums, self.lines = _read_sums(folder)
        self.extra = sorted(set(self.tree.files) - {MANIFEST, SIGNATURE, CARD, SUMS, *self.files})
        self.strays = files_by_pixels(self.tree.files[name] for name in self.extra if name.lower().endswith(".png"))
        self.others = {name.rpartition(".")[0]: name for name in self.extra}
        self.published_as = {entry.sha256: entry.file for entry in manifest.images}
        self.found: dict[str, list[str]] = {}  # what is wrong -> with which files
        self.line_endings: list[str] = []  # files in which they were changed

    def problems(self) -> list[str]:
        """A line a file; many files with the same problem share one."""
        ours = {parent for file in self.files for parent in ("train", file.rpartition("/")[0])}
        extra = [*self.extra, *(f"{name}/" for name in self.tree.folders if name not in ours)]
        lines = list(self.lines)
        for what, files in (self.found | ({"extra, not published": sorted(extra)} if extra else {})).items():
            many = len(files) > MOST_NAMED
            lines += (
                [f"{len(files)} files: {what}; the first is {files[0]}"] if many else [f"{f}: {what}" for f in files]
            )
        return lines

    def notes(self) -> tuple[str, ...]:
        """What programs did on the way that changes nothing for a reader."""
        renamed = [n for n, path in self.tree.files.items() if n != path.relative_to(self.folder).as_posix()]
        told = (
            (self.line_endings, "line endings were changed (git, an editor), nothing else"),
            (renamed, "the name is in another Unicode form (an archive, a file system), nothing else"),
            (
                [name for name in self.tree.left if name != ATTRIBUTES],
                "left by git, a hub's client, a file manager or a cloud drive",
            ),
        )
        return tuple(
            f"{files[0]}{f' and {len(files) - 1} more' if files[1:] else ''}: {what}" for files, what in told if files
        )

    def _tell(self, file: str, what: str) -> None:
        self.found.setdefault(what, []).append(file)

    def check_companions(self) -> None:
        """Find what is wrong beside the images."""
        signed = SIGNATURE in self.sums or (self.folder / SIGNATURE).exists()
        companions = [MANIFEST, *([SIGNATURE] if signed else []), CARD]
        for name in (*companions, *self.manifest.files):
            if self.sums and name not in self.sums:
                self._tell(name, f"not listed in {SUMS}")
        for name in self.sums:
            if name not in companions and name not in self.files:
                self._tell(name, f"listed in {SUMS}, but not published")
        self._digest_of(SUMS)
        for name in companions:
            digest = self._digest_of(name)
            if digest is None:
                self._tell(name, "missing")
            elif name == CARD and digest != self.manifest.card_sha256:
                self._tell(name, f"edited, it differs from what {MANIFEST} says")
            elif digest != self.sums.get(name, digest):
                self._tell(name, f"edited, it differs from {SUMS}")
        for shard in self.manifest.shards:
            if shard.data in self.tree.files and (what := self._rewritten(shard)):
                self._tell(shard.data, what)

    def _rewritten(self, shard: Shard) -> str:
        """What was done to a shard as a file; rows that were changed are told of apart."""
        path = self.tree.files[shard.data]
        try:
            data, images = read_bytes(path), len(read_shard(path))
        except OSError as error:
            return str(error.strerror or error)
        if images != shard.images:
            return f"has {images} images, {MANIFEST} says {shard.images}"
        rewritten = hashlib.sha256(data).hexdigest() != self.sums.get(shard.data)
        return f"file rewritten, it differs from {SUMS}" if rewritten else ""

    def _digest_of(self, name: str) -> str | None:
        """SHA-256 of a text file as it was published; None if there is none."""
        try:
            text, changed = read_text(self.folder / name)
        except FileNotFoundError:
            return None
        except OSError:  # it cannot be read, so it agrees with no sum
            return ""
        if changed:
            self.line_endings.append(name)
        return hashlib.sha256(text).hexdigest()

    def images(self) -> list[_Image]:
        """What is to be looked at; what is not there is told of."""
        found = []
        for entry in self.manifest.images:
            if not self.manifest.in_its_folder(entry):
                self._tell(entry.file, f"label swapped, the manifest says {self.manifest.class_names[entry.label]!r}")
            if (place := self.places.get(entry.file)) is None:
                self._tell(entry.file, self._where_it_is(entry))
            else:
                found.append(_Image(entry, place, self.manifest.shape_of(entry), self.sums.get(entry.file, "")))
        return found

    def tell_of(self, seen: _Seen) -> None:
        """Take in what was found wrong with images."""
        for file, what in seen.wrong:
            self._tell(file, what)
        for file, pixels, resized in seen.others:
            if other := self.published_as.get(pixels):
                self._tell(file, f"label swapped, holds the image of {other}")
            else:
                self._tell(file, "resized or changed in its colours" if resized else "pixels changed")

    def _where_it_is(self, entry: PublishedImage) -> str:
        """What became of a file that is not there."""
        folder, _, _ = entry.file.rpartition("/")
        if path := self.strays.get(entry.sha256):
            name = path.relative_to(self.folder).as_posix()
            there = name.rpartition("/")[0]
            if there == folder:
                return f"renamed to {name}"
            if there in {file.rpartition("/")[0] for file in self.files}:
                return f"label swapped, moved to {name}"
            return f"moved to the folder {there or '.'}"
        other = self.others.get(entry.file.removesuffix(".png"))
        if other is None:
            return "missing"
        try:
            return what_became_of(read_bytes(self.tree.files[other])[:512], f"{other} in its place")
        except OSError:
            return "missing"


class _Image(NamedTuple):
    """A published image that is to be looked at.

    Attributes:
        entry: of the manifest.
        place: where it lies.
        shape: that it should have.
        digest: SHA-256 of its file; "" for none that is listed.
        original: uint8 [C, H, W], where there is one.
    """

    entry: PublishedImage
    place: Place
    shape: tuple[int, int, int]
    digest: str
    original: Pixels | None = None


@dataclass
class _Seen:
    """What images, letters and originals show.

    Attributes:
        wrong: files, and what is wrong with each.
        others: files that hold other pixels, the `pixel_sha256` of these, and whether they are of another shape.
        largest: change of a value, in `file`.
        compared: images that have an original of their size.
        tried: letters, of which `opened` opened, `identical` to the view of their original.
        sizes: one line for each original of another size.
    """

    wrong: list[tuple[str, str]] = field(default_factory=list)
    others: list[tuple[str, str, bool]] = field(default_factory=list)
    largest: int = 0
    file: str = ""
    compared: int = 0
    tried: int = 0
    opened: int = 0
    identical: int = 0
    sizes: list[str] = field(default_factory=list)

    def published(self, images: Sequence[_Image]) -> Iterator[tuple[_Image, Tensor]]:
        """Those whose pixels are those that were published; the rest is told of."""
        for each in images:
            file, data = each.entry.file, b""
            try:
                data = each.place.read()
                image = read_png(data)
            except PNG_ERRORS as error:
                self.wrong.append((file, what_became_of(data, error)))
                continue
            if (pixels := pixel_sha256(image)) != each.entry.sha256:
                self.others.append((file, pixels, tuple(image.shape) != each.shape))
                continue
            digest = hashlib.sha256(data).hexdigest()
            if digest != (each.digest or digest) or chunks_of(data) != CHUNKS:
                self.wrong.append((file, "file rewritten, pixels unchanged"))
            if each.place.told(each.entry) != (file, each.entry.label):
                self.wrong.append((file, "label or name swapped in its shard"))
            yield each, image

    def add(self, images: list[_Image], copies: Tensor, key: Key | None) -> None:
        """Take in a batch uint8 [B, C, H, W]."""
        views, opened = copies, torch.zeros(len(copies), dtype=torch.bool)
        if key is not None:
            views, opened = open_each(key, copies)
            self.tried, self.opened = self.tried + len(copies), self.opened + int(opened.sum())
        for each, copy, view, good in zip(images, copies, views, opened.tolist(), strict=True):
            if each.original is None:
                continue
            file, original = each.entry.file, torch.from_numpy(each.original)
            if original.shape != copy.shape:
                self.sizes.append(f"{file}: {list(copy.shape)} pixels, the original has {list(original.shape)}")
                continue
            self.compared += 1
            change = int((copy.short() - original.short()).abs().max())
            if change > self.largest:
                self.largest, self.file = change, file
            if good and key is not None:
                self.identical += torch.equal(view, key.seen(original[None])[0])

    def merge(self, other: _Seen) -> None:
        """Take in what was seen elsewhere, of later images."""
        if other.largest > self.largest:
            self.largest, self.file = other.largest, other.file
        for name in ("wrong", "others", "sizes", "compared", "tried", "opened", "identical"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def problems(self, count: int, key: Key | None) -> list[str]:
        if self.opened < self.tried:
            return [*self.sizes, f"letters: {self.opened} of {self.tried} open with this key"]
        if key is not None and self.identical < self.compared:
            return [*self.sizes, f"views: {self.identical} of {count} are identical to those of the originals"]
        return self.sizes


def _look_at_all(
    images: Sequence[_Image], originals: dict[str, Callable[[], Tensor]], key: Key | None, runner: Runner | None
) -> _Seen:
    """Look at images, beside the originals of those that have one."""
    numbers = cut((math.prod(each.shape) for each in images), MOST_VALUES) if images else []

    def chunk(number: int) -> list[_Image]:
        part = images[numbers[number].start : numbers[number].stop]
        readers = [originals.get(each.entry.file) for each in part]
        return [
            each if read is None else each._replace(original=read().numpy())
            for each, read in zip(part, readers, strict=True)
        ]

    seen = _Seen()
    with tempfile.TemporaryDirectory() as kept:
        for result in work_through(len(numbers), chunk, partial(_look, key), Path(kept), runner):
            seen.merge(_Seen(**result))
    return seen


def _look(key: Key | None, images: Sequence[_Image]) -> Result:
    """What these images show: a `_Seen` as JSON."""
    seen = _Seen()
    for batch, copies in in_batches(seen.published(images)):
        seen.add(batch, copies, key)
    return asdict(seen)


def _against_originals(
    manifest: Manifest, clean: ImageSet, originals: Iterable[str], seen: _Seen, *, whole: bool
) -> list[str]:
    """What only the originals can show; `whole` if nothing else is wrong."""
    problems = []
    if difference := class_difference(manifest.class_names, clean.class_names, "the copy", "the originals"):
        problems.append(f"{MANIFEST}: classes: {difference}")
    published = {entry.file for entry in manifest.images}
    problems += [f"{file}: no original of this name and label" for file in sorted(published - set(originals))]
    problems += [f"{file}: has an original, but is not published" for file in sorted(set(originals) - published)]
    stated, allowed = manifest.epsilon_measured_255, manifest.epsilon_255
    if allowed is not None and seen.largest > allowed:
        problems.append(f"epsilon: {seen.largest}/255 in {seen.file}, the manifest states {allowed}/255")
    elif seen.largest != stated and whole and not problems:
        problems.append(f"epsilon: measured {seen.largest}/255, the manifest says {stated}/255")
    return problems


def _read_sums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """SHA256SUMS as {file: hexadecimal digest}, and its own problems."""
    try:
        lines = read_text(folder / SUMS)[0].decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{SUMS}: cannot be read ({getattr(error, 'strerror', None) or 'no UTF-8'})"]
    whole = [line for line in lines if re.fullmatch(r"[0-9a-f]{64}  .+", line)]
    problems = [f"{SUMS}: {len(lines) - len(whole)} damaged lines"] if len(whole) < len(lines) else []
    return {line[66:]: line[:64] for line in whole}, problems
