"""True pairs, and what the changes of a class have in common: no network is needed where the label says it all."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.attack.purification import pairs_asked_for, pairs_of
from uge.attack.residuals import class_means
from uge.data.images import ImageSet, to_uint8
from uge.training import PlainTraining


class PairMeans(PlainTraining):
    """Subtract from every published image the mean change of its class over a few pairs.

        x <- x_u - m_y,   m_y = mean over the pairs of class y of x_u - x

    Ours, against perturbations that a class has in common: a denoiser (`pairs`) sees no label. Noise of its own in
    each image adds its share over the pairs to m_y. Test images are shown as they are.

    Args:
        clean: all originals, in the order of the published images.
        pairs: how many of them the hacker has, balanced over the classes; a class without one stays as it is.
        seed: decides which.
    """

    knows = "pairs"

    def __init__(self, clean: ImageSet, pairs: str | int = 100, seed: int = 0) -> None:
        self.clean, self.seed = clean, seed
        self.pairs = pairs_asked_for(clean, pairs, "pair-means")

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Raises: ConfigError, as `pairs_of`."""
        chosen = pairs_of(self.clean, images, self.pairs, "pair-means", self.seed)
        change = images.images[chosen].float() - self.clean.images[chosen].float()
        means = class_means(change, images.labels[chosen], images.classes)
        parts = zip(images.images.split(500), images.labels.split(500), strict=True)
        return torch.cat([to_uint8((x.float() - means[y]) / 255) for x, y in parts]), images.labels
