"""RandAugment and UEraser: strong augmentations against perturbations that are fitted to plain images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.options import number, whole_number
from uge.operations import apply_drawn, blur
from uge.training import PlainTraining


class RandAugment(PlainTraining):
    """A few operations drawn for each image, all at one magnitude: Cubuk et al., CVPR Workshops 2020.

    Args:
        operations: how many after each other.
        magnitude: 0 to 30, the end of each operation's range.
    """

    def __init__(self, operations: str | int = 2, magnitude: str | float = 9) -> None:
        self.operations = whole_number("randaugment: operations", operations, 1, 14)
        self.magnitude = number("randaugment: magnitude", magnitude, 0, 30)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        level = torch.full((len(x),), self.magnitude / 30)
        for _ in range(self.operations):
            x = apply_drawn(x, level, wide=False, generator=generator)
        return x, y


class UEraser(PlainTraining):
    """Train on the worst of several strong augmentations of each image, and then on single ones.

        min_theta mean_i max_k L(f(T_k(x_i)), y_i),   k = 1..K

    Qin et al., Learning the Unlearnable: Adversarial Augmentations Suppress Unlearnable Example Attacks, 2023; their
    public code (github.com/lafeat/ueraser) has K = 5 in 60 of 200 epochs, and then K = 1. T is plasma brightness,
    plasma contrast and a shuffle of the channels, each with probability 0.5, then TrivialAugment. Ours: a plasma is a
    sum of octaves of smooth noise and no diamond-square fractal, and there is a blur of up to two pixels, with
    probability 0.5 too.

    Args:
        draws: K; one draw is their lighter form without a maximum.
        share: of the training, from its start, in which the worst of K counts; 1 is their UEraser-max.
    """

    cost = 3.0

    def __init__(self, draws: str | int = 5, share: str | float = 0.3) -> None:
        self.most = self.draws = whole_number("ueraser: draws", draws, 1, 50)
        self.share = number("ueraser: share", share, 0, 1)

    def at_epoch(self, progress: float) -> None:
        self.draws = self.most if progress < self.share else 1

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """All draws of the batch after one another, [K * B, C, H, W]."""
        views = [strongly_augmented(x, generator) for _ in range(self.draws)]
        return torch.cat(views), torch.cat([y] * self.draws)

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        each = F.cross_entropy(network(x), y, reduction="none")
        return each.view(self.draws, -1).amax(0).mean()


def strongly_augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of UEraser's augmentation, for each image of x [B, C, H, W] its own."""
    count, channels = x.shape[:2]

    def chosen() -> Tensor:
        return (torch.rand(count, generator=generator) < 0.5).view(-1, 1, 1, 1).to(x.device)

    light = (2 * plasma(x, generator) - 1) * torch.rand(count, 1, 1, 1, generator=generator).to(x.device)
    x = torch.where(chosen(), (x + light).clamp(0, 1), x)
    x = torch.where(chosen(), ((x - 0.5) * 4 * plasma(x, generator) + 0.5).clamp(0, 1), x)
    order = torch.rand(count, channels, generator=generator).argsort(1).to(x.device)
    x = torch.where(chosen(), x.gather(1, order[:, :, None, None].expand_as(x)), x)
    x = torch.where(chosen(), blur(x, 2 * torch.rand(count, generator=generator)), x)
    return apply_drawn(x, torch.rand(count, generator=generator), wide=True, generator=generator)


def plasma(x: Tensor, generator: torch.Generator) -> Tensor:
    """Cloudy noise [B, 1, H, W] that fills [0, 1]: octaves of smooth noise, each weaker than the one before.

    The factor between octaves, the roughness, is drawn from 0.3 to 0.7 for each image.
    """
    count, _, height, width = x.shape
    roughness = (0.3 + 0.4 * torch.rand(count, generator=generator)).view(-1, 1, 1, 1)
    clouds = torch.zeros(count, 1, height, width)
    cells = 2
    while cells <= 2 * max(height, width):
        octave = torch.rand(count, 1, min(cells, height), min(cells, width), generator=generator)
        clouds += F.interpolate(octave, size=(height, width), mode="bilinear") * roughness ** (cells.bit_length() - 2)
        cells *= 2
    low, high = clouds.amin((2, 3), keepdim=True), clouds.amax((2, 3), keepdim=True)
    return ((clouds - low) / (high - low).clamp_min(1e-6)).to(x.device)
