"""A U-Net that takes perturbations out of images, told more of each than its pixels.

Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015; images are
folded first as in Zhang et al., FFDNet, IEEE TIP 2018, which costs a quarter.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FOLD = 2


class UNet(nn.Module):
    """D(x, c) = x - R(fold(4 x - 2), c) / 8 for images float32 [B, C, H, W] of any size, told c float32 [B, T].

    Ours: two poolings, normalisation, and c, which becomes a bias of each filter after each level on the way down. The
    last layer begins at zero, so that D begins as the identity.

    Args:
        channels: of the images.
        told: T.
        width: filters of the first level; twice as many on the second, four times on the third.
        seed: of the initial weights.
    """

    def __init__(self, channels: int, told: int, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        levels = (width, 2 * width, 4 * width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(two_convolutions(a, b) for a, b in pairwise((channels * FOLD**2, *levels)))
            self.biases = nn.ModuleList(nn.Linear(told, each) for each in levels)
            self.up = nn.ModuleList(two_convolutions(a + b, b) for a, b in pairwise(reversed(levels)))
            self.last = nn.Conv2d(width, channels * FOLD**2, 3, padding=1)
        for tensor in self.last.parameters():
            nn.init.zeros_(tensor)
        self.made_of = channels, told, width

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to a process as arrays: torch would send each of its hundred tensors through shared memory."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}
        return _sent, (self.made_of, arrays, self.training)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        return x - self.residual(x, told) / 8

    def residual(self, x: Tensor, told: Tensor) -> Tensor:
        """R, float32 [B, C, H, W]."""
        height, width = x.shape[2:]
        padded = F.pad(4 * x - 2, (0, width % FOLD, 0, height % FOLD), mode="replicate")
        z = F.pixel_unshuffle(padded, FOLD).contiguous(memory_format=torch.channels_last)
        seen: list[Tensor] = []
        for level, bias in zip(self.down, self.biases, strict=True):
            z = F.max_pool2d(z, 2, ceil_mode=True) if seen else z
            z = level(z) + bias(told)[:, :, None, None]
            seen.append(z)
        for level, kept in zip(self.up, (seen[1], seen[0]), strict=True):
            z = level(torch.cat([F.interpolate(z, size=kept.shape[2:]), kept], dim=1))
        return F.pixel_shuffle(self.last(z), FOLD)[:, :, :height, :width]


def _sent(made_of: tuple[int, int, int], arrays: dict[str, Any], training: bool) -> UNet:
    network = UNet(*made_of)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return network.train(training)


def two_convolutions(channels: int, filters: int) -> nn.Sequential:
    """Two 3x3 convolutions with normalisation."""
    layers: list[nn.Module] = []
    for before in (channels, filters):
        layers += [nn.Conv2d(before, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
    return nn.Sequential(*layers)
