"""True pairs, and what the changes of a class have in common: no network is needed where the label says it all."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.attack.options import whole
from uge.attack.purification import NO_PAIRS
from uge.data.images import ImageSet, to_uint8
from uge.errors import ConfigError
from uge.runtime import generator_for
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

    def __init__(self, clean: ImageSet, pairs: str | int = 100, seed: int = 0) -> None:
        self.clean, self.seed = clean, seed
        self.pairs = whole("pair-means: pairs", pairs, 1)
        if self.pairs > len(clean):
            raise ConfigError(f"pair-means: {self.pairs} pairs asked for, but there are {len(clean)} originals")

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Raises: ConfigError, where the originals are not those of the images one by one."""
        if not self.clean.aligned(images):
            raise ConfigError(f"pair-means: {NO_PAIRS}")
        chosen = self.clean.choose(self.pairs, generator_for(self.seed, "clean subset"))
        labels, change = images.labels[chosen], images.images[chosen].float() - self.clean.images[chosen].float()
        means = torch.zeros(images.classes, *change.shape[1:])
        for label in labels.unique().tolist():
            means[label] = change[labels == label].mean(0)
        parts = zip(images.images.split(500), images.labels.split(500), strict=True)
        return torch.cat([to_uint8((x.float() - means[y]) / 255) for x, y in parts]), images.labels
