"""A hacker who has some of the originals: trains on them alone, among the published images, or after these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from uge.attack.last_layer import refit_last_layer
from uge.attack.options import originals_for, whole_number
from uge.data.images import ImageSet
from uge.runtime import generator_for
from uge.training import AtTest, PlainTraining


def subset_of(clean: ImageSet, asked: str | int, what: str, seed: int) -> ImageSet:
    """The originals that a hacker has: the same for every hacker of a seed, balanced over the classes.

    Raises:
        ConfigError: as `originals_for`.
    """
    return clean.take(originals_for(clean, asked, what), generator_for(seed, "clean subset"))


class WithOriginals(PlainTraining):
    """A hacker who has some of the originals.

    Args:
        clean: all originals.
        images: how many of them the hacker has.
        seed: decides which.

    Attributes:
        name: of the counter-measure, for errors.
    """

    name: ClassVar[str]
    knows = "clean images"
    tried: ClassVar[Sequence[str]] = ("100", "500")
    amount = "clean images"

    def __init__(self, clean: ImageSet, images: str | int = 500, seed: int = 0) -> None:
        self.subset, self.seed = subset_of(clean, images, self.name, seed), seed


class CleanOnly(WithOriginals):
    """Train on a few originals and nothing else: what they are worth without the published images.

    They are repeated until they are as many as the published images, so that an epoch is as long for this hacker as
    for any other. Options: as `WithOriginals`.
    """

    name = "clean-only"
    sees_copy = False

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        again = torch.arange(max(len(images), len(self.subset))) % len(self.subset)
        return self.subset.images[again], self.subset.labels[again]


class CleanMixed(WithOriginals):
    """Train on the published images and a few originals together.

    Args:
        times: how often each original counts; the others are those of `WithOriginals`.
    """

    name = "clean-mixed"

    def __init__(self, clean: ImageSet, images: str | int = 500, times: str | int = 1, seed: int = 0) -> None:
        super().__init__(clean, images, seed)
        self.times = whole_number("clean-mixed: times", times, 1, 1000)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        x = torch.cat([images.images, *[self.subset.images] * self.times])
        return x, torch.cat([images.labels, *[self.subset.labels] * self.times])


class Refit(WithOriginals):
    """Train on the published images, then fit the last layer anew on a few originals.

    Kirichenko, Izmailov & Wilson, Last Layer Re-Training Is Sufficient for Robustness to Spurious Correlations,
    ICLR 2023: a network that relies on a shortcut has often learnt other features, too. Ours: one
    logistic regression that is stopped early (see `refit_last_layer`), not a mean of ten with an L1 penalty. Options:
    as `WithOriginals`.
    """

    name = "refit"
    tried = ("500",)

    def finish(self, network: nn.Module, images: Tensor, targets: Tensor, at_test: AtTest) -> bool:
        seen = at_test(self.subset)
        refit_last_layer(network, seen.images, seen.labels, self.seed)
        return True


class Coarse(Refit):
    """Train under coarser labels, then fit the last layer on the true labels of a few originals.

        y <- g(y),   g: classes -> groups, drawn once, as many classes in each as in any other, but for one

    Against perturbations that are tied to the published labels (Zhang et al., Unlearnable Clusters, CVPR 2023): within
    a group they say different things about what is to be called alike.

    Args:
        groups: how many there are, at most as many as classes, drawn by the seed; the others are those of
            `WithOriginals`.
    """

    def __init__(self, clean: ImageSet, images: str | int = 500, groups: str | int = 2, seed: int = 0) -> None:
        super().__init__(clean, images, seed)
        self.groups = whole_number("coarse: groups", groups, 2, clean.classes)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        order = torch.randperm(images.classes, generator=generator_for(self.seed, "coarse labels"))
        return images.images, (order % self.groups)[images.labels]
