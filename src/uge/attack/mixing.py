"""Cutout, mixup and CutMix: parts of images go missing or come from other images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from uge.attack.options import number
from uge.data.images import ImageSet, normalisation_of
from uge.training import PlainTraining


class Cutout(PlainTraining):
    """A square hole in every image, filled with the mean of the training images.

    DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017: the centre is anywhere
    in the image, so that a part of the hole may lie outside.

    Args:
        share: side of the hole over the side of the image; a half is their 16 of 32 pixels on CIFAR-10.
    """

    def __init__(self, share: str | float = 0.5) -> None:
        self.share = number("cutout: share", share, 0.01, 1)
        self.mean: tuple[float, ...] = (0.5,)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        self.mean, _ = normalisation_of(images.images)
        return images.images, images.labels

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows, columns = (_span(side, self.share, len(x), generator) for side in x.shape[2:])
        hole = (rows[:, :, None] & columns[:, None, :])[:, None].to(x.device)
        return torch.where(hole, torch.tensor(self.mean, device=x.device).view(1, -1, 1, 1), x), y


class Mixing(PlainTraining):
    """What mixup and CutMix share: pairs within a batch, and targets as shares of the classes.

    Targets that are no labels (a teacher's answers) are mixed as they stand.

    Args:
        alpha: the share of the first image is drawn from Beta(alpha, alpha), once a batch.
    """

    def __init__(self, alpha: str | float = 1.0) -> None:
        self.alpha = number(f"{type(self).__name__.lower()}: alpha", alpha, 0.01, 100)
        self.classes = -1  # known after `prepare`

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        self.classes = images.classes
        return images.images, images.labels

    def draw(self, x: Tensor, generator: torch.Generator) -> tuple[float, Tensor]:
        """The share of the first image and the partner of each, int64 [B]."""
        seed = int(torch.randint(2**62, (), generator=generator))  # torch draws no Beta from an explicit generator
        share = float(np.random.default_rng(seed).beta(self.alpha, self.alpha))
        return share, torch.randperm(len(x), generator=generator).to(x.device)

    def mixed_targets(self, y: Tensor, partner: Tensor, share: float) -> Tensor:
        """float32 [B, K]: share of the own class, the rest of the partner's."""
        soft = F.one_hot(y, self.classes).float() if y.ndim == 1 else y
        return share * soft + (1 - share) * soft[partner]


class Mixup(Mixing):
    """x <- s x + (1 - s) x', and the targets alike: Zhang et al., mixup, ICLR 2018."""

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        share, partner = self.draw(x, generator)
        return share * x + (1 - share) * x[partner], self.mixed_targets(y, partner, share)


class Cutmix(Mixing):
    """A box of a share 1 - s of the image comes from the partner: Yun et al., CutMix, ICCV 2019.

    The targets are mixed by the area that the box really covers, as there; every batch is mixed, where they mix half of
    the batches on CIFAR.
    """

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        share, partner = self.draw(x, generator)
        rows, columns = (_span(side, (1 - share) ** 0.5, 1, generator) for side in x.shape[2:])
        box = (rows[:, :, None] & columns[:, None, :])[:, None].to(x.device)
        own = 1 - float(box.float().mean())
        return torch.where(box, x[partner], x), self.mixed_targets(y, partner, own)


def _span(side: int, share: float, count: int, generator: torch.Generator) -> Tensor:
    """bool [count, side]: an interval of `share` of the side around a pixel drawn uniformly, cut at the borders."""
    length = max(1, round(share * side))
    first = torch.randint(side, (count, 1), generator=generator) - length // 2
    place = torch.arange(side)
    return (place >= first) & (place < first + length)
