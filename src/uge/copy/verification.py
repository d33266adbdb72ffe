"""Whether a published folder is what its protector made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from uge.copy.files import CopyTree, files_of, read_bytes, read_text, what_became_of
from uge.copy.forms import places_of
from uge.copy.inspection import Published, Seen, look_at_all
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
from uge.copy.reading import files_by_pixels
from uge.copy.shards import read_shard
from uge.data import Photographs
from uge.data.images import ImageSet, Packed, class_difference
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

    Example:
        >>> found = uge.verify("copy", clean=images, key=key)
        >>> found.problems, found.views
        ((), 12)
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    signature, problems = _signature(folder, key)
    files = _Files(folder, manifest)
    files.check_companions()
    originals: dict[str, Callable[[], Packed]] = {}  # what reads each
    if clean is not None:
        originals = {file: partial(clean.packed, number) for number, file in enumerate(files_of(clean.small))}
    opener = key.recipients_part() if key is not None and key.opens and signature == "valid" else None
    seen = look_at_all(files.images(), originals, opener, runner)
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
        self.tree = CopyTree.of(folder)
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
        left = [name for name in self.tree.left if name != ATTRIBUTES]
        told = (
            (self.line_endings, "line endings were changed (git, an editor), nothing else"),
            (renamed, "the name is in another Unicode form (an archive, a file system), nothing else"),
            (left, "left by git, a hub's client, a file manager or a cloud drive"),
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

    def images(self) -> list[Published]:
        """What is to be looked at; what is not there is told of."""
        found = []
        for entry in self.manifest.images:
            if not self.manifest.in_its_folder(entry):
                self._tell(entry.file, f"label swapped, the manifest says {self.manifest.class_names[entry.label]!r}")
            if (place := self.places.get(entry.file)) is None:
                self._tell(entry.file, self._where_it_is(entry))
            else:
                found.append(Published(entry, place, self.manifest.shape_of(entry), self.sums.get(entry.file, "")))
        return found

    def tell_of(self, seen: Seen) -> None:
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


def _against_originals(
    manifest: Manifest, clean: ImageSet, originals: Iterable[str], seen: Seen, *, whole: bool
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
