"""One-pixel shortcut (OPS): Wu et al., "One-Pixel Shortcut", ICLR 2023, arXiv 2205.12141.

All images of class k get one pixel of one colour, at the place p and with the corner c of the colour cube where

    mean |x_p - c|_1 / var |x_p - c|_1   over the images of the class

is largest: the pixel changes much, and by about the same in all of them.

Deviation: no two classes get the same place and colour. Where borders are constant, as in pictures of single things,
the criterion alone would choose one pixel for all classes, which is no shortcut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from uge.baselines.baseline import Baseline, BaselineConfig
from uge.data.images import to_float
from uge.errors import ConfigError

STEADY = 1e-6  # variance of |x_p - c|_1 below which a pixel counts as constant


@dataclass(frozen=True)
class OPSConfig(BaselineConfig):
    """OPS has no settings: one pixel, any colour."""

    bound = "L0: one pixel; no L_inf bound"


class OPSProtection(Baseline[OPSConfig]):
    """Sets one pixel of each image to its class's colour."""

    Config = OPSConfig

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        rows, columns, colours = (part[labels] for part in self._pixels)
        copies = images.clone()
        copies[torch.arange(len(copies)), :, rows, columns] = colours
        return copies

    @cached_property
    def _pixels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row and column int64 [K], and colour uint8 [K, C], of each class."""
        channels, width = self.clean.channels, self.clean.image_size[1]
        colours = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * channels).view(-1, channels)  # [2^C, C]
        free = torch.ones(len(colours), self.clean.images[0, 0].numel(), dtype=torch.bool)
        if free.numel() < self.clean.classes:
            raise ConfigError(f"{free.numel()} pixels and colours cannot tell {self.clean.classes} classes apart")
        places, chosen = [], []
        for label in range(self.clean.classes):
            score = self._scores(self.clean.images[self.clean.labels == label], colours)
            best = int(score.masked_fill(~free, -1.0).argmax())
            colour, place = divmod(best, free.shape[1])
            free[colour, place] = False
            places.append(place)
            chosen.append(colours[colour])
        where = torch.tensor(places)
        return where // width, where % width, (255 * torch.stack(chosen)).to(torch.uint8)

    @staticmethod
    def _scores(images: Tensor, colours: Tensor) -> Tensor:
        """Mean over variance of |x_p - c|_1 over images uint8 [N, C, H, W], float64 [2^C, H W]."""
        sums = torch.zeros(2, len(colours), images[0, 0].numel(), dtype=torch.float64)
        for part in images.split(250):
            x = to_float(part).flatten(2)  # [B, C, H W]
            for number, colour in enumerate(colours):
                change = (x - colour[None, :, None]).abs().sum(1).double()
                sums[:, number] += torch.stack([change.sum(0), change.square().sum(0)])
        mean, square = sums / max(1, len(images))
        return mean / (square - mean.square()).clamp_min(STEADY)
