"""The generator: a small U-Net that proposes a perturbation for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Block(nn.Module):
    """Two 3x3 convolutions with GroupNorm and SiLU."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, filters, 3, padding=1),
            nn.GroupNorm(4, filters),
            nn.SiLU(),
            nn.Conv2d(filters, filters, 3, padding=1),
            nn.GroupNorm(4, filters),
            nn.SiLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Generator(nn.Module):
    """x -> x_u = clip(x + epsilon * tanh(U(x)), 0, 1).

    The U-Net works on patches: the image is folded so that each patch x patch cell is one position with as many
    channels as the cell has values. It is cheaper than full resolution, and the perturbation may differ by place
    inside a cell, so that directions that the first layer of an authorised network ignores can be found.

    Args:
        channels: image channels; `classes`: their number, where the generator is label-conditional.
        epsilon_255: the L_inf bound in 8-bit steps.
        width: filters of the first level, a multiple of 4; doubled at each of two coarser levels.
        patch: side of a cell in pixels.
        label_conditional: whether the perturbation may depend on the label and not on the image alone.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        epsilon_255: int,
        width: int = 48,
        patch: int = 2,
        label_conditional: bool = False,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon_255 / 255
        self.patch = patch
        self.label = nn.Embedding(classes, 4 * width) if label_conditional else None
        self.fine = _Block(channels * patch**2, width)
        self.middle = _Block(width, 2 * width)
        self.coarse = _Block(2 * width, 4 * width)
        self.join_middle = _Block(6 * width, 2 * width)
        self.join_fine = _Block(3 * width, width)
        self.propose = nn.Conv2d(width, channels * patch**2, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x_u float32 [B, C, H, W] for x in [0, 1] and labels y int64 [B]."""
        height, width = x.shape[2:]
        padded = F.pad(2 * x - 1, (0, -width % self.patch, 0, -height % self.patch), mode="replicate")
        fine = self.fine(F.pixel_unshuffle(padded, self.patch))  # [B, C*p*p, H/p, W/p] -> [B, width, H/p, W/p]
        middle = self.middle(F.avg_pool2d(fine, 2, ceil_mode=True))
        coarse = self.coarse(F.avg_pool2d(middle, 2, ceil_mode=True))
        if self.label is not None:
            coarse = coarse + self.label(y)[:, :, None, None]
        up = F.interpolate(coarse, size=middle.shape[2:], mode="nearest")
        middle = self.join_middle(torch.cat([middle, up], dim=1))
        up = F.interpolate(middle, size=fine.shape[2:], mode="nearest")
        proposal = F.pixel_shuffle(self.propose(self.join_fine(torch.cat([fine, up], dim=1))), self.patch)
        return (x + self.epsilon * proposal[:, :, :height, :width].tanh()).clamp(0, 1)
