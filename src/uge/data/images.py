"""The one in-memory form of a labelled image set."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.errors import DataError

Packed = Callable[[], Tensor]  # an image on its way: what gives it where it is looked at, uint8 [C, H, W]

MOST_VALUES = 250 * 3 * 64 * 64  # of a batch of images, whose views and copies take some hundred bytes a value
HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")  # what Python makes of bytes that are no text, in names of files
CLEARLY = 0.8  # of the distance to another image, what a copy is away from its own at most


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled 8-bit images.

    Attributes:
        images: uint8 [N, C, H, W] with C = 1 (gray) or 3 (RGB), contiguous, on the CPU.
        labels: int64 [N] in 0..classes-1.
        class_names: one name a class, in label order; no two have one `identity`.
        names: one name an image, unique, without suffix ("00042" or "cat/00042"); from the source's file names.

    Names are kept with composed letters (Unicode NFC), whichever way a file system has written them.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(composed, self.class_names)))
        object.__setattr__(self, "names", tuple(map(composed, self.names)))
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise DataError(
                f"expected uint8 images [N, 1 or 3, H, W], got {self.images.dtype} {list(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"expected one int64 label an image, got {self.labels.dtype} {list(self.labels.shape)}"
                f" for {len(self.images)} images"
            )
        if len(self.names) != len(self.images):
            raise DataError(f"expected one name an image, got {len(self.names)} for {len(self.images)}")
        check_class_names(self.class_names)
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.classes:
            raise DataError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())},"
                f" but there are {self.classes} class names"
            )

    def __getstate__(self) -> dict[str, Any]:
        """As bytes on its way to other processes: torch would take shared memory, of which containers have little."""
        return vars(self) | {"images": self.images.numpy(), "labels": self.labels.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: torch.from_numpy(state[name]) for name in ("images", "labels")}
        vars(self).update(state | arrays)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[2], self.images.shape[3]

    # -- as `uge.data.Photographs`, which are seen at another size than their own

    @property
    def small(self) -> ImageSet:
        """What networks see: these images."""
        return self

    @property
    def sizes(self) -> None:
        """No image has a size of its own."""
        return None

    def own(self, number: int) -> Tensor:
        """One image, uint8 [C, H, W]."""
        return self.images[number]

    def packed(self, number: int) -> Packed:
        """The same, ready to be sent to another process: what gives it there."""
        return partial(torch.from_numpy, self.images[number].numpy())

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at `indices` (int64 [M]), in that order; class names stay."""
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            names=tuple(self.names[i] for i in indices.tolist()),
        )

    def take(self, count: int, generator: torch.Generator) -> ImageSet:
        """A random subset of `count` images, balanced over the classes as far as they reach."""
        return self.subset(self.choose(count, generator))

    def choose(self, count: int, generator: torch.Generator) -> Tensor:
        """The indices of the images that `take` takes, int64, rising."""
        order = torch.randperm(len(self), generator=generator)
        rank = torch.empty(len(self), dtype=torch.int64)  # how many of its class come before an image
        for label in range(self.classes):
            members = order[self.labels[order] == label]
            rank[members] = torch.arange(len(members))
        by_rank = order[torch.argsort(rank[order], stable=True)]
        return by_rank[:count].sort().values

    def like(self, other: ImageSet) -> ImageSet:
        """The same images as another program may have ordered them, as `other` orders them.

        Labels follow the other's class names, where both have the same ones by `identity`. Images follow its file names
        (with their folders, or else without), where both have the same ones and none occurs twice; otherwise they stay.
        """
        images = self
        ours, theirs = ([identity(name) for name in each.class_names] for each in (self, other))
        if self.class_names != other.class_names and sorted(ours) == sorted(theirs):
            place = torch.tensor([theirs.index(name) for name in ours])
            images = replace(images, labels=place[images.labels], class_names=other.class_names)
        for strip in (False, True):
            mine, theirs = (
                [name.rpartition("/")[2] if strip else name for name in each.names] for each in (images, other)
            )
            if mine == theirs:
                break
            if len(set(mine)) == len(mine) and sorted(mine) == sorted(theirs):
                at = {name: number for number, name in enumerate(mine)}
                return images.subset(torch.tensor([at[name] for name in theirs]))
        return images

    def aligned(self, copies: ImageSet, most: int = 500) -> bool:
        """Whether copies are those of these images one by one; `most` of them are compared, for speed.

        They are as many, of the same size and labels, and coarsely seen (8x8) clearly nearer to their own originals
        than to others of the class; where the images of each class are all alike nobody can tell.
        """
        if self.images.shape != copies.images.shape or not torch.equal(self.labels, copies.labels):
            return False
        order = self.labels.argsort(stable=True)
        pick, following = order[:-1], order[1:]  # class by class, where the next one stands for "another"
        same = (self.labels[pick] == self.labels[following]).nonzero()[:, 0]
        chosen = same[:: max(1, len(same) // most)]
        seen, own, other = (
            F.adaptive_avg_pool2d(images[each[chosen]].float(), 8)
            for images, each in ((copies.images, pick), (self.images, pick), (self.images, following))
        )
        alike = torch.equal(own, other)
        return alike or bool((seen - own).abs().sum() <= CLEARLY * (seen - other).abs().sum())

    def with_images(self, images: Tensor) -> ImageSet:
        """The same labels and names on other images, such as a protected copy."""
        return replace(self, images=images)

    def digest(self) -> str:
        """SHA-256 over pixels, shape, labels and class names: names the data in records."""
        hasher = hashlib.sha256(repr((tuple(self.images.shape), self.class_names)).encode())
        hasher.update(self.images.contiguous().numpy().data)  # as it lies in memory, not a second copy of it
        hasher.update(self.labels.contiguous().numpy().data)
        return hasher.hexdigest()


def composed(name: str) -> str:
    """The same with composed letters (NFC): file systems and zips write one name in several ways."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def identity(name: str) -> str:
    """What a class is the same by, in a key, a copy, a test set and their originals.

    Case, spaces around, Unicode form and the leading zeros of whole numbers do not count: one class is "Cat" in a
    folder and "cat" in a table, 3 in an array and "03" in a folder.
    """
    name = composed(composed(name).casefold()).strip()
    return (name.lstrip("0") or "0") if name.isascii() and name.isdecimal() else name


def check_class_names(names: Sequence[str]) -> None:
    """Refuse class names that cannot be told apart by `identity`, or cannot be written as text.

    Raises:
        DataError: naming them.
    """
    if wrong := next(filter(HALF_OF_A_PAIR.search, names), None):
        raise DataError(f"the class name {wrong!r} is not Unicode text; rename the class")
    if twice := repeated([identity(name) for name in names]):
        one, other = [name for name in names if identity(name) == twice][:2]
        raise DataError(
            f"two classes are called {one!r}; rename one"
            if one == other
            else f"the classes {one!r} and {other!r} differ in case, spaces or leading zeros alone, which other systems"
            " take for one name; rename one"
        )


def class_difference(ours: Sequence[str], theirs: Sequence[str], we: str, they: str) -> str:
    """How the classes of two data sets, in label order, differ by `identity`; "" where they are the same in one order.

    `we` and `they` say whose they are, such as "the key".
    """
    mine, other = ({identity(name): name for name in names} for names in (ours, theirs))
    words = [
        f"{who} alone has {', '.join(map(repr, lone[:3]))}" + (f" and {len(lone) - 3} more" if lone[3:] else "")
        for who, some, rest in ((we, mine, other), (they, other, mine))
        if (lone := [name for key, name in some.items() if key not in rest])
    ]
    if words:
        return "; ".join(words)
    at = next((at for at, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b), None)
    return "" if at is None else f"class {at} is {ours[at]!r} in {we}, {theirs[at]!r} in {they}"


def repeated(names: Sequence[str]) -> str:
    """A name that occurs more than once; "" where each is there once."""
    if len(set(names)) == len(names):  # asked of every subset: no more than this in the usual case
        return ""
    return next(name for number, name in enumerate(names) if name in names[:number])


def batch_of(shape: Sequence[int]) -> int:
    """How many images [C, H, W] to work on at a time: 250, fewer of large ones, so that memory has a bound."""
    return max(1, min(250, MOST_VALUES // math.prod(shape)))


def pixel_sha256(image: Tensor) -> str:
    """SHA-256 of one image's shape and pixels (uint8 [C, H, W]), whatever file format carried them."""
    hasher = hashlib.sha256(",".join(map(str, image.shape)).encode())
    hasher.update(image.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def to_float(images: Tensor) -> Tensor:
    """uint8 in 0..255 -> float32 in [0, 1], same shape and device."""
    return images.float() / 255


def to_uint8(images: Tensor) -> Tensor:
    """float32 in [0, 1] -> uint8 in 0..255, rounded to nearest, same shape and device."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def normalisation_of(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation a channel of images [N, C, H, W] in 0..255, on the scale [0, 1]."""
    sample = images[:: max(1, len(images) // 5000)]
    sums = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for part in sample.split(100):  # as floats the whole sample would take four times its bytes
        x = part.cpu().double() / 255
        sums += torch.stack([x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))])
    count = sample.numel() / images.shape[1]
    mean, square = sums / count
    std = ((square - mean.square()).clamp_min(0) * count / max(1, count - 1)).sqrt().clamp_min(1e-3)
    return tuple(round(v, 6) for v in mean.tolist()), tuple(round(v, 6) for v in std.tolist())
