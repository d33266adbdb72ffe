"""A hacker who has some of the originals: trains on them alone, among the published images, or after these."""

from __future__ import annotations

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


class CleanOnly(PlainTraining):
    """Train on a few originals and nothing else: what they are worth without the published images.

    They are repeated until they are as many as the published images, so that an epoch is as long for this hacker as
    for any other.

    Args:
        clean: all originals.
        images: how many of them the hacker has.
        seed: decides which.
    """

    knows = "clean images"
    sees_copy = False
    tried = ("100", "500")
    amount = "clean images"

    def __init__(self, clean: ImageSet, images: str | int = 500, seed: int = 0) -> None:
        self.subset = subset_of(clean, images, "clean-only", seed)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        again = torch.arange(max(len(images), len(self.subset))) % len(self.subset)
        return self.subset.images[again], self.subset.labels[again]


class CleanMixed(PlainTraining):
    """Train on the published images and a few originals together.

    Args:
        clean: all originals.
        images: how many of them the hacker has.
        times: how often each of them counts.
        seed: decides which.
    """

    knows = "clean images"
    tried = ("100", "500")
    amount = "clean images"

    def __init__(self, clean: ImageSet, images: str | int = 500, times: str | int = 1, seed: int = 0) -> None:
        self.subset = subset_of(clean, images, "clean-mixed", seed)
        self.times = whole_number("clean-mixed: times", times, 1, 1000)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        x = torch.cat([images.images, *[self.subset.images] * self.times])
        return x, torch.cat([images.labels, *[self.subset.labels] * self.times])


class Refit(PlainTraining):
    """Train on the published images, then fit the last layer anew on a few originals.

    Kirichenko, Izmailov & Wilson, Last Layer Re-Training Is Sufficient for Robustness to Spurious Correlations,
    ICLR 2023: a network that relies on a shortcut has often learnt other features, too. Ours: one
    logistic regression that is stopped early (see `refit_last_layer`), not a mean of ten with an L1 penalty.

    Args:
        clean: all originals.
        images: how many of them the hacker has.
        seed: decides which.
    """

    knows = "clean images"
    tried = ("500",)
    amount = "clean images"

    def __init__(self, clean: ImageSet, images: str | int = 500, seed: int = 0) -> None:
        self.subset = subset_of(clean, images, "refit", seed)
        self.seed = seed

    def finish(self, network: nn.Module, images: Tensor, targets: Tensor, at_test: AtTest) -> bool:
        seen = at_test(self.subset)
        refit_last_layer(network, seen.images, seen.labels, seen.classes, self.seed)
        return True


class Coarse(Refit):
    """Train under coarser labels, then fit the last layer on the true labels of a few originals.

        y <- g(y),   g: classes -> groups, drawn once, as many classes in each as in any other, but for one

    Against perturbations that are tied to the published labels (Zhang et al., Unlearnable Clusters, CVPR 2023): within
    a group they say different things about what is to be called alike.

    Args:
        clean: all originals.
        images: how many of them the hacker has.
        groups: how many there are; at most as many as classes.
        seed: decides which originals, and the groups.
    """

    def __init__(self, clean: ImageSet, images: str | int = 500, groups: str | int = 2, seed: int = 0) -> None:
        super().__init__(clean, images, seed)
        self.groups = whole_number("coarse: groups", groups, 2, clean.classes)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        order = torch.randperm(images.classes, generator=generator_for(self.seed, "coarse labels"))
        return images.images, (order % self.groups)[images.labels]
