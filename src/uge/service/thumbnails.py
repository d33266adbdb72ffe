"""Recognises the picture itself: the nearest of all published ones, seen small and in gray.

    s(x) = max_i <u(x), u(x_i)>,   u(x) = luma of x at 16x16, without its mean, of length one

Colour, contrast, blur, JPEG and a denoiser leave it near one, a crop or a mix does not. How near another picture comes
their originals tell, each held against the copies of all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import to_float
from uge.operations import luma

SIDE = 16
FALSE_ALARMS = 0.0025
COMPARED = 2000  # published images that set the threshold, at most
AT_A_TIME = 500


def vectors(images: Tensor) -> Tensor:
    """u(x) float32 [N, 256], of uint8 images [N, C, H, W]."""
    parts = [F.adaptive_avg_pool2d(luma(to_float(part)), SIDE).flatten(1) for part in images.split(AT_A_TIME)]
    seen = torch.cat(parts)
    return F.normalize(seen - seen.mean(1, keepdim=True))


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Of all published images.

    Attributes:
        kept: float32 [N, 256].
        threshold: of the similarity.
    """

    kept: Tensor
    threshold: float

    @classmethod
    def of(cls, copies: Tensor, originals: Tensor, generator: torch.Generator) -> Thumbnails:
        """Of published images and what the recipient sees of them, both uint8 [N, C, H, W].

        The generator draws the originals that set the threshold.
        """
        kept = vectors(copies)
        chosen = torch.randperm(len(kept), generator=generator)[:COMPARED]
        both = (vectors(each) @ kept.T for each in (originals[chosen], originals[chosen].flip(3)))
        others = torch.maximum(*both).scatter(1, chosen[:, None], -1.0).amax(1)
        return cls(kept, float(others.quantile(1 - FALSE_ALARMS)))

    def recognise(self, images: Tensor) -> Tensor:
        """Which of these uint8 images show a published picture, mirrored or not, bool [N]."""
        both = ((vectors(each) @ self.kept.T for each in (part, part.flip(3))) for part in images.split(AT_A_TIME))
        return torch.cat([torch.maximum(*each).amax(1) for each in both]) > self.threshold
