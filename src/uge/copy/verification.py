"""Whether a published folder is what its protector made."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from uge.copy.files import PNG_ERRORS, files_of, in_batches, read_png
from uge.copy.manifest import CARD, MANIFEST, SIGNATURE, SUMS, Manifest, PublishedImage, read_manifest
from uge.copy.opening import open_each
from uge.copy.reading import files_by_pixels
from uge.data.images import ImageSet, pixel_sha256
from uge.errors import PublishError
from uge.keys import Key

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
    """

    problems: tuple[str, ...]
    images: int
    epsilon_255: int | None = None
    signature: str = "not checked"
    letters: int | None = None
    views: int | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(folder: Path | str, *, clean: ImageSet | None = None, key: Key | None = None) -> Verification:
    """Check a published folder against its manifest, its sums and, where given, the originals and a key.

    Args:
        folder: a published folder.
        clean: the originals, paired with the copies by name, to measure epsilon and to check the labels.
        key: whose fingerprint the signature must match, and which must open every letter. Together with `clean` it
            shows that the recipient sees in the copy what he would see in the originals.

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
    originals = {} if clean is None else dict(zip(files_of(clean), clean.images, strict=True))
    seen = _Seen(key if key is not None and key.opens and signature == "valid" else None, originals)
    for entries, copies in in_batches(files.images()):
        seen.add(entries, copies)
    problems += files.problems() + seen.problems(len(manifest.images))
    if clean is not None:
        problems += _against_originals(manifest, clean, seen, whole=not problems)
    return Verification(
        tuple(problems),
        len(manifest.images),
        seen.largest if seen.compared else None,
        signature,
        seen.opened if seen.key else None,
        seen.identical if seen.key and clean is not None else None,
    )


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
        self.files = {entry.file for entry in manifest.images}
        self.sums, self.lines = _read_sums(folder)
        self.extra = sorted(_extra(folder, self.files))
        self.strays = files_by_pixels(folder) if any(name.endswith(".png") for name in self.extra) else {}
        self.published_as = {entry.sha256: entry.file for entry in manifest.images}
        self.found: dict[str, list[str]] = {}  # what is wrong -> with which files

    def problems(self) -> list[str]:
        """A line a file; many files with the same problem share one."""
        lines = list(self.lines)
        for what, files in (self.found | ({"extra, not published": self.extra} if self.extra else {})).items():
            many = len(files) > MOST_NAMED
            lines += (
                [f"{len(files)} files: {what}; the first is {files[0]}"] if many else [f"{f}: {what}" for f in files]
            )
        return lines

    def _tell(self, file: str, what: str) -> None:
        self.found.setdefault(what, []).append(file)

    def check_companions(self) -> None:
        """Find what is wrong beside the images."""
        signed = SIGNATURE in self.sums or (self.folder / SIGNATURE).exists()
        companions = [MANIFEST, *([SIGNATURE] if signed else []), CARD]
        for name in (*companions, *(entry.file for entry in self.manifest.images)):
            if self.sums and name not in self.sums:
                self._tell(name, f"not listed in {SUMS}")
        for name in self.sums:
            if name not in companions and name not in self.files:
                self._tell(name, f"listed in {SUMS}, but not published")
        for name in companions:
            if not (self.folder / name).is_file():
                self._tell(name, "missing")
            elif name in self.sums and _digest_of(self.folder / name) != self.sums[name]:
                self._tell(name, f"edited, it differs from {SUMS}")

    def images(self) -> Iterator[tuple[PublishedImage, Tensor]]:
        """Entries and images whose pixels are those that were published; the rest is told of."""
        for entry in self.manifest.images:
            if not self.manifest.in_its_folder(entry):
                self._tell(entry.file, f"label swapped, the manifest says {self.manifest.class_names[entry.label]!r}")
            try:
                data = (self.folder / entry.file).read_bytes()
                image = read_png(data)
            except FileNotFoundError:
                moved = self.strays.get(entry.sha256)
                where = moved and f"label swapped, moved to {moved.relative_to(self.folder).as_posix()}"
                self._tell(entry.file, where or "missing")
            except PNG_ERRORS as error:
                self._tell(entry.file, f"unreadable ({error})")
            else:
                if (pixels := pixel_sha256(image)) == entry.sha256:
                    if hashlib.sha256(data).hexdigest() != self.sums.get(entry.file, hashlib.sha256(data).hexdigest()):
                        self._tell(entry.file, "file rewritten, pixels unchanged")
                    yield entry, image
                else:
                    other = self.published_as.get(pixels)
                    self._tell(entry.file, f"label swapped, holds the image of {other}" if other else "pixels changed")


@dataclass
class _Seen:
    """What letters and originals show."""

    key: Key | None
    originals: dict[str, Tensor]
    largest: int = 0
    file: str = ""
    compared: int = 0
    tried: int = 0
    opened: int = 0
    identical: int = 0
    sizes: list[str] = field(default_factory=list)

    def add(self, entries: list[PublishedImage], copies: Tensor) -> None:
        """Take in a batch uint8 [B, C, H, W]."""
        views, opened = copies, torch.zeros(len(copies), dtype=torch.bool)
        if self.key is not None:
            views, opened = open_each(self.key, copies)
            self.tried, self.opened = self.tried + len(copies), self.opened + int(opened.sum())
        for entry, copy, view, good in zip(entries, copies, views, opened.tolist(), strict=True):
            original = self.originals.get(entry.file, copy)
            if original.shape != copy.shape:
                self.sizes.append(f"{entry.file}: {list(copy.shape)} pixels, the original has {list(original.shape)}")
            elif entry.file in self.originals:
                self.compared += 1
                change = int((copy.short() - original.short()).abs().max())
                if change > self.largest:
                    self.largest, self.file = change, entry.file
                if good and self.key is not None:
                    self.identical += torch.equal(view, self.key.seen(original[None])[0])

    def problems(self, count: int) -> list[str]:
        if self.opened < self.tried:
            return [*self.sizes, f"letters: {self.opened} of {self.tried} open with this key"]
        if self.key is not None and self.identical < self.compared:
            return [*self.sizes, f"views: {self.identical} of {count} are identical to those of the originals"]
        return self.sizes


def _against_originals(manifest: Manifest, clean: ImageSet, seen: _Seen, *, whole: bool) -> list[str]:
    """What only the originals can show; `whole` if nothing else is wrong."""
    problems = []
    if manifest.class_names != clean.class_names:
        problems.append(f"{MANIFEST}: classes {manifest.class_names}, the originals have {clean.class_names}")
    published = {entry.file for entry in manifest.images}
    problems += [f"{file}: no original of this name and label" for file in sorted(published - set(seen.originals))]
    problems += [f"{file}: has an original, but is not published" for file in sorted(set(seen.originals) - published)]
    stated, allowed = manifest.epsilon_measured_255, manifest.epsilon_255
    if allowed is not None and seen.largest > allowed:
        problems.append(f"epsilon: {seen.largest}/255 in {seen.file}, the manifest states {allowed}/255")
    elif seen.largest != stated and whole and not problems:
        problems.append(f"epsilon: measured {seen.largest}/255, the manifest says {stated}/255")
    return problems


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # it cannot be read, so it agrees with no sum
        return ""


def _read_sums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """SHA256SUMS as {file: hexadecimal digest}, and its own problems."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{SUMS}: cannot be read ({getattr(error, 'strerror', None) or error})"]
    whole = [line for line in lines if re.fullmatch(r"[0-9a-f]{64}  .+", line)]
    problems = [f"{SUMS}: {len(lines) - len(whole)} damaged lines"] if len(whole) < len(lines) else []
    return {line[66:]: line[:64] for line in whole}, problems


def _extra(folder: Path, published: set[str]) -> Iterator[str]:
    """Files and folders that were not published, hidden ones too: a stray folder breaks ImageFolder."""
    files = {MANIFEST, SIGNATURE, CARD, SUMS, *published}
    folders = {parent for file in published for parent in ("train", file.rpartition("/")[0])}
    for path, subfolders, names in os.walk(folder):
        place = Path(path).relative_to(folder)
        yield from (name for name in ((place / n).as_posix() for n in names) if name not in files)
        yield from (f"{name}/" for name in ((place / n).as_posix() for n in subfolders) if name not in folders)
