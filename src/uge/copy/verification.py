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

from uge.copy.files import PNG_ERRORS, files_of, read_png
from uge.copy.manifest import CARD, MANIFEST, SIGNATURE, SUMS, Manifest, PublishedImage, read_manifest
from uge.copy.opening import open_each
from uge.copy.reading import files_by_pixels
from uge.data.images import ImageSet, batch_of, pixel_sha256
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
    files = _Files(folder, manifest)
    signature = "not checked" if (folder / SIGNATURE).exists() else "none"
    problems = []
    if key is not None:
        try:
            read_manifest(folder, signed_by=key.fingerprint)
            signature = "valid"
        except PublishError as error:
            problems.append(f"signature: {error}")
            signature = "wrong" if signature == "not checked" else "none"
    originals = {} if clean is None else dict(zip(files_of(clean), clean.images, strict=True))
    found = _Compared(key if key is not None and key.opens and signature == "valid" else None)
    for entries, copies in files.batches():
        found.add(entries, copies, originals)
    problems += files.problems() + found.problems(manifest)
    if clean is not None:
        problems += _against_originals(manifest, clean, originals, found, whole=not problems)
    return Verification(
        tuple(problems),
        len(manifest.images),
        found.largest if found.compared else None,
        signature,
        found.letters if found.key else None,
        found.identical if found.key and clean is not None else None,
    )


class _Files:
    """The files of a folder, against manifest and sums."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.entries = {entry.file: entry for entry in manifest.images}
        self.sums, self.lines = _read_sums(folder)
        self.found: dict[str, list[str]] = {}  # what is wrong -> with which files

    def problems(self) -> list[str]:
        """A line a file; many files with the same problem share one."""
        lines = list(self.lines)
        for what, files in self.found.items():
            many = len(files) > MOST_NAMED
            lines += (
                [f"{len(files)} files: {what}; the first is {files[0]}"] if many else [f"{f}: {what}" for f in files]
            )
        return lines

    def batches(self) -> Iterator[tuple[list[PublishedImage], Tensor]]:
        """Entries and images [B, C, H, W] whose pixels are those that were published; the rest is told of."""
        self._check_companions()
        extra = sorted(_extra(self.folder, self.entries))
        strays = files_by_pixels(self.folder) if any(name.endswith(".png") for name in extra) else {}
        published_as = {entry.sha256: entry.file for entry in self.manifest.images}
        chosen: list[tuple[PublishedImage, Tensor]] = []
        for entry in self.manifest.images:
            image = self._check_image(entry, strays, published_as)
            if image is None:
                continue
            if chosen and (image.shape != chosen[0][1].shape or len(chosen) >= batch_of(image.shape)):
                yield [each for each, _ in chosen], torch.stack([each for _, each in chosen])
                chosen = []
            chosen.append((entry, image))
        if chosen:
            yield [each for each, _ in chosen], torch.stack([each for _, each in chosen])
        for name in extra:
            self._tell(name, "extra, not published")

    def _tell(self, file: str, what: str) -> None:
        self.found.setdefault(what, []).append(file)

    def _check_companions(self) -> None:
        signed = SIGNATURE in self.sums or (self.folder / SIGNATURE).exists()
        companions = [MANIFEST, *([SIGNATURE] if signed else []), CARD]
        for name in (*companions, *self.entries):
            if self.sums and name not in self.sums:
                self._tell(name, f"not listed in {SUMS}")
        for name in self.sums:
            if name not in companions and name not in self.entries:
                self._tell(name, f"listed in {SUMS}, but not published")
        for name in companions:
            if not (self.folder / name).is_file():
                self._tell(name, "missing")
            elif name in self.sums and _digest_of(self.folder / name) != self.sums[name]:
                self._tell(name, f"edited, it differs from {SUMS}")

    def _check_image(
        self, entry: PublishedImage, strays: dict[str, Path], published_as: dict[str, str]
    ) -> Tensor | None:
        """The image of an entry, if it is the published one."""
        if not self.manifest.in_its_folder(entry):
            self._tell(entry.file, f"label swapped, the manifest says {self.manifest.class_names[entry.label]!r}")
        if not (self.folder / entry.file).is_file():
            moved = strays.get(entry.sha256)
            where = moved and moved.relative_to(self.folder).as_posix()
            self._tell(entry.file, f"label swapped, moved to {where}" if moved else "missing")
            return None
        try:
            data = (self.folder / entry.file).read_bytes()
            image = read_png(data)
        except PNG_ERRORS as error:
            self._tell(entry.file, f"unreadable ({error})")
            return None
        pixels = pixel_sha256(image)
        if pixels != entry.sha256:
            other = published_as.get(pixels)
            self._tell(entry.file, f"label swapped, holds the image of {other}" if other else "pixels changed")
            return None
        if entry.file in self.sums and hashlib.sha256(data).hexdigest() != self.sums[entry.file]:
            self._tell(entry.file, "file rewritten, pixels unchanged")
        return image


@dataclass
class _Compared:
    """Copies against their letters and originals."""

    key: Key | None
    largest: int = 0
    file: str = ""
    compared: int = 0
    tried: int = 0
    letters: int = 0
    identical: int = 0
    sizes: list[str] = field(default_factory=list)

    def add(self, entries: list[PublishedImage], copies: Tensor, originals: dict[str, Tensor]) -> None:
        """Take in a batch uint8 [B, C, H, W]."""
        views, opened = copies, torch.zeros(len(copies), dtype=torch.bool)
        if self.key is not None:
            views, opened = open_each(self.key, copies)
            self.tried, self.letters = self.tried + len(copies), self.letters + int(opened.sum())
        for entry, copy, view, good in zip(entries, copies, views, opened.tolist(), strict=True):
            original = originals.get(entry.file)
            if original is None:
                continue
            if original.shape != copy.shape:
                self.sizes.append(f"{entry.file}: {list(copy.shape)} pixels, the original has {list(original.shape)}")
                continue
            self.compared += 1
            change = int((copy.short() - original.short()).abs().max())
            if change > self.largest:
                self.largest, self.file = change, entry.file
            if good and self.key is not None:
                self.identical += torch.equal(view, self.key.seen(original[None])[0])

    def problems(self, manifest: Manifest) -> list[str]:
        found = list(self.sizes)
        if self.letters < self.tried:
            found.append(f"letters: {self.letters} of {self.tried} open with this key")
        elif self.key is not None and self.identical < self.compared:
            found.append(f"views: {self.identical} of {len(manifest.images)} are identical to those of the originals")
        return found


def _against_originals(
    manifest: Manifest, clean: ImageSet, originals: dict[str, Tensor], found: _Compared, *, whole: bool
) -> list[str]:
    """What only the originals can show; `whole` if nothing else is wrong."""
    problems = []
    if manifest.class_names != clean.class_names:
        problems.append(f"{MANIFEST}: classes {manifest.class_names}, the originals have {clean.class_names}")
    published = {entry.file for entry in manifest.images}
    problems += [f"{file}: no original of this name and label" for file in sorted(published - set(originals))]
    problems += [f"{file}: has an original, but is not published" for file in sorted(set(originals) - published)]
    stated = manifest.epsilon_measured_255
    if manifest.epsilon_255 is not None and found.largest > manifest.epsilon_255:
        problems.append(f"epsilon: {found.largest}/255 in {found.file}, the manifest states {manifest.epsilon_255}/255")
    elif found.largest != stated and whole and not problems:
        problems.append(f"epsilon: measured {found.largest}/255, the manifest says {stated}/255")
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


def _extra(folder: Path, entries: dict[str, PublishedImage]) -> Iterator[str]:
    """Files and folders that were not published, hidden ones too: a stray folder breaks ImageFolder."""
    files = {MANIFEST, SIGNATURE, CARD, SUMS, *entries}
    folders = {parent for file in entries for parent in ("train", file.rpartition("/")[0])}
    for path, subfolders, names in os.walk(folder):
        place = Path(path).relative_to(folder)
        yield from (name for name in ((place / n).as_posix() for n in names) if name not in files)
        yield from (f"{name}/" for name in ((place / n).as_posix() for n in subfolders) if name not in folders)
