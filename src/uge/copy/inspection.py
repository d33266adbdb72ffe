"""What published images show when they are looked at, beside their letters and their originals."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from uge.copy.chunks import Done, cut, work_through
from uge.copy.files import CHUNKS, PNG_ERRORS, chunks_of, in_batches, read_png, what_became_of
from uge.copy.forms import MOST_VALUES, Place
from uge.copy.manifest import PublishedImage
from uge.data.images import Packed, pixel_sha256
from uge.keys import Key
from uge.runners import Runner


class Published(NamedTuple):
    """A published image that is to be looked at.

    Attributes:
        entry: of the manifest.
        place: where it lies.
        shape: that it should have.
        digest: SHA-256 of its file; "" for none that is listed.
        original: where there is one.
    """

    entry: PublishedImage
    place: Place
    shape: tuple[int, int, int]
    digest: str
    original: Packed | None = None


@dataclass
class Seen:
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

    def published(self, images: Sequence[Published]) -> Iterator[tuple[Published, Tensor]]:
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

    def add(self, images: list[Published], copies: Tensor, key: Key | None) -> None:
        """Take in a batch uint8 [B, C, H, W]."""
        views, opened = copies, torch.zeros(len(copies), dtype=torch.bool)
        if key is not None:
            views, opened = key.open_each(copies)
            self.tried, self.opened = self.tried + len(copies), self.opened + int(opened.sum())
        for each, copy, view, good in zip(images, copies, views, opened.tolist(), strict=True):
            if each.original is None:
                continue
            file, original = each.entry.file, each.original()
            if original.shape != copy.shape:
                self.sizes.append(f"{file}: {list(copy.shape)} pixels, the original has {list(original.shape)}")
                continue
            self.compared += 1
            change = int((copy.short() - original.short()).abs().max())
            if change > self.largest:
                self.largest, self.file = change, file
            if good and key is not None:
                self.identical += torch.equal(view, key.seen(original[None])[0])

    def merge(self, other: Seen) -> None:
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


def look_at_all(
    images: Sequence[Published], originals: dict[str, Callable[[], Packed]], key: Key | None, runner: Runner | None
) -> Seen:
    """Look at images, beside the originals of those that have one, each read here and decoded there."""
    numbers = cut((math.prod(each.shape) for each in images), MOST_VALUES) if images else []

    def chunk(number: int) -> list[Published]:
        part = images[numbers[number].start : numbers[number].stop]
        return [each._replace(original=read()) if (read := originals.get(each.entry.file)) else each for each in part]

    seen = Seen()
    with tempfile.TemporaryDirectory() as kept:
        for result in work_through(len(numbers), chunk, partial(_look, key), Path(kept), runner):
            seen.merge(Seen(**result))
    return seen


def _look(key: Key | None, images: Sequence[Published]) -> Done:
    """What these images show: a `Seen` as JSON."""
    seen = Seen()
    for batch, copies in in_batches(seen.published(images)):
        seen.add(batch, copies, key)
    return asdict(seen)
