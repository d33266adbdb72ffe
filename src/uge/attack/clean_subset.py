"""A hacker who has some of the originals: trains on them alone, or on them among the published images."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.attack.options import whole
from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.runtime import generator_for
from uge.training import PlainTraining


def subset_of(clean: ImageSet, count: str | int, what: str) -> ImageSet:
    """The originals that a hacker has: the same for every hacker, balanced over the classes.

    Raises:
        ConfigError: no whole number, or more than there are.
    """
    wanted = whole(f"{what}: images", count, 1)
    if wanted > len(clean):
        raise ConfigError(f"{what}: {wanted} clean images asked for, but there are {len(clean)}")
    return clean.take(wanted, generator_for(0, "clean subset"))


class CleanOnly(PlainTraining):
    """Train on a few originals and nothing else: what they are worth without the published images.

    They are repeated until they are as many as the published images, so that an epoch is as long for this hacker as
    for any other.

    Args:
        clean: all originals.
        images: how many of them the hacker has.
    """

    def __init__(self, clean: ImageSet, images: str | int = 500) -> None:
        self.subset = subset_of(clean, images, "clean-only")

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        again = torch.arange(max(len(images), len(self.subset))) % len(self.subset)
        return self.subset.images[again], self.subset.labels[again]


class CleanMixed(PlainTraining):
    """Train on the published images and a few originals together.

    Args:
        clean: all originals.
        images: how many of them the hacker has.
        times: how often each of them counts.
    """

    def __init__(self, clean: ImageSet, images: str | int = 500, times: str | int = 1) -> None:
        self.subset = subset_of(clean, images, "clean-mixed")
        self.times = whole("clean-mixed: times", times, 1, 1000)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        x = torch.cat([images.images, *[self.subset.images] * self.times])
        return x, torch.cat([images.labels, *[self.subset.labels] * self.times])
