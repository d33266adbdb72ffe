"""What a class has in common: means of residuals, or of true changes, are subtracted; or residuals change places."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.attack.options import originals_for
from uge.attack.purification import pairs_of
from uge.data.images import ImageSet, to_float, to_uint8
from uge.errors import ConfigError
from uge.filters import parse_filter
from uge.training import PlainTraining

KEPT = ("low", "high")


def class_means(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean of each class, zero for one without a member: float32 [N, C, H, W] and int64 [N] -> [K, C, H, W]."""
    means = torch.zeros(classes, *x.shape[1:], device=x.device)
    for label in labels.unique().tolist():
        means[label] = x[labels == label].mean(0)
    return means


class ResidualMeans(PlainTraining):
    """Subtract what the residuals of a class have in common.

        x <- x - (m_y - m),   m_y = mean over class y of x - D(x),   m = mean over the classes

    A perturbation that is the same for a whole class, and finer than what D keeps, is m_y to the accuracy of the mean.
    Ours, against class-wise perturbations; one that depends on the sample, or is flat like a tint, stays. Test images
    are shown as they are.

    Args:
        denoiser: D, a filter such as "blur:2" (see `uge.filters`).
    """

    def __init__(self, denoiser: str = "blur:2") -> None:
        if denoiser == "none":
            raise ConfigError("residual-means: without a denoiser there is no residual")
        self.filter = parse_filter(denoiser)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        x = to_float(images.images)
        residual = torch.cat([part - self.filter(part) for part in x.split(500)])
        means = class_means(residual, images.labels, images.classes)
        means -= means[images.labels.unique()].mean(0)
        return to_uint8(x - means[images.labels]), images.labels


class Transplant(PlainTraining):
    """Every image gets the residual of another image: what is fine no longer tells the class.

        x_i <- S(x_i) + (x_j - S(x_j)),   j drawn from the batch,   and the label stays with what is kept

    Ours. A network that trains on the results cannot use a shortcut that lies in the residuals (`keep` low), or one
    that lies in S, such as a tint (`keep` high); nor can it use anything true that lies there. j is of any class: were
    it never of the image's own, its residual would say which class the image is not. Test images are shown as they are.

    Args:
        keep: "low", S of the image itself, or "high", its residual.
        smoother: S, a filter such as "low-pass:0.5" (see `uge.filters`).
    """

    tried = ("low", "high,smoother=blur:3")

    def __init__(self, keep: str = "low", smoother: str = "low-pass:0.5") -> None:
        if keep not in KEPT:
            raise ConfigError(f"transplant: keep is {' or '.join(KEPT)}, got '{keep}'")
        if smoother == "none":
            raise ConfigError("transplant: without a smoother there is no residual")
        self.keep = keep
        self.filter = parse_filter(smoother)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        partner = torch.randperm(len(x), generator=generator).to(x.device)
        smooth = self.filter(x)
        residual = x - smooth
        mixed = smooth + residual[partner] if self.keep == "low" else smooth[partner] + residual
        return mixed.clamp(0, 1), y


class PairMeans(PlainTraining):
    """Subtract from every published image the mean change of its class over a few pairs.

        x <- x_u - m_y,   m_y = mean over the pairs of class y of x_u - x

    Ours, against perturbations that a class has in common: no network is needed where the label says it all, and a
    denoiser (`pairs`) sees no label. Noise of its own in each image adds its share over the pairs to m_y. Test images
    are shown as they are.

    Args:
        clean: all originals, in the order of the published images.
        pairs: how many of them the hacker has, balanced over the classes; a class without one stays as it is.
        seed: decides which.
    """

    knows = "pairs"
    tried = ("10", "100")
    amount = "pairs"

    def __init__(self, clean: ImageSet, pairs: str | int = 100, seed: int = 0) -> None:
        self.clean, self.seed = clean, seed
        self.pairs = originals_for(clean, pairs, "pair-means", "pairs")

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Raises: ConfigError, as `pairs_of`."""
        chosen = pairs_of(self.clean, images, self.pairs, "pair-means", self.seed)
        change = images.images[chosen].float() - self.clean.images[chosen].float()
        means = class_means(change, images.labels[chosen], images.classes)
        parts = zip(images.images.split(500), images.labels.split(500), strict=True)
        return torch.cat([to_uint8((x.float() - means[y]) / 255) for x, y in parts]), images.labels
