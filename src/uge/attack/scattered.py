"""COIN: every pixel is read a little beside its place, which undoes what a convolution has laid over an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.attack.options import number
from uge.data.images import ImageSet, to_float, to_uint8
from uge.runtime import generator_for
from uge.training import PlainTraining


class Coin(PlainTraining):
    """Train on images whose pixels are each drawn from a random place nearby, and test so too.

        x'(p) = x(p + s_p),   s_p ~ U[-a, a]^2 for every pixel p, read bilinearly

    Wang et al., Corrupting Convolution-based Unlearnable Datasets with Pixel-based Image Transformations, AAAI 2025.
    Ours: drawn anew for every batch.

    Args:
        reach: a, in pixels.
        seed: of the places in test images.
    """

    def __init__(self, reach: str | float = 2.0, seed: int = 0) -> None:
        self.reach = number("coin: reach", reach, 0.1, 16)
        self.seed = seed

    def at_test(self, images: ImageSet) -> ImageSet:
        rng = generator_for(self.seed, "coin")
        parts = [to_uint8(scattered(to_float(part), self.reach, rng)) for part in images.images.split(500)]
        return images.with_images(torch.cat(parts))

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return scattered(x, self.reach, generator), y


def scattered(x: Tensor, reach: float, generator: torch.Generator) -> Tensor:
    """Each pixel of x [B, C, H, W] from a place up to `reach` pixels away each way, drawn for itself."""
    count, _, height, width = x.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    moved = reach * (2 * torch.rand(count, height, width, 2, generator=generator) - 1)
    places = (torch.stack([columns, rows], dim=-1) + moved + 0.5) * 2 / torch.tensor([width, height]) - 1
    return F.grid_sample(x, places.to(x.device), padding_mode="reflection", align_corners=False)
