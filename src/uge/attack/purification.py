"""Learnt purification: without pairs, and with true pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.denoiser import Denoised, patches
from uge.attack.options import count, originals_for
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.runtime import generator_for

STRIDE = 3  # of the blind spots; no two of them touch


@dataclass(eq=False)
class Purify(Denoised):
    """A denoiser learnt from the published images alone: each pixel is guessed from the others.

        min_D mean ||J (D(x with J hidden) - x)||^2,   J a grid of blind spots, each hidden behind its neighbours' mean

    Batson & Royer, Noise2Self: Blind Denoising by Self-Supervision, ICML 2019. What one pixel tells about the next
    stays, what is independent from pixel to pixel goes: fine perturbations, but no tints, and the image's own fine
    detail too. At the end every pixel is guessed once, over the nine places of the grid. Options: as `Denoised`.
    """

    name = "purify"
    before = 2.5
    by_epochs = False
    steps: int = count(1500, 1)

    def learn(self, images: ImageSet) -> None:
        pixels = images.images.to(self.device)

        def error(network: nn.Module, pick: Tensor, rng: torch.Generator) -> Tensor:
            (x,) = patches([to_float(pixels[pick])], rng)
            place = int(torch.randint(STRIDE**2, (), generator=rng))
            spots = blind_spots(x, place)
            return (network(masked(x, spots)) - x)[:, :, spots].square().mean()

        self.fitted(images.channels, error, len(images))

    @torch.no_grad()
    def estimate(self, images: Tensor) -> Tensor:
        x = to_float(images.to(self.device))
        guess = torch.empty_like(x)
        for place in range(STRIDE**2):
            spots = blind_spots(x, place)
            guess[:, :, spots] = self.network(masked(x, spots))[:, :, spots]
        return guess.clamp(0, 1)


def blind_spots(x: Tensor, place: int) -> Tensor:
    """bool [H, W]: one pixel in `STRIDE` each way, the `place`-th of the grids that together cover all."""
    rows, columns = (torch.arange(side, device=x.device) % STRIDE for side in x.shape[2:])
    return (rows[:, None] == place // STRIDE) & (columns == place % STRIDE)


def masked(x: Tensor, spots: Tensor) -> Tensor:
    """x with every spot replaced by the weighted mean of its eight neighbours (diagonal ones count half)."""
    kernel = torch.tensor([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]], device=x.device) / 6
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    around = F.conv2d(padded, kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1])
    return torch.where(spots, around, x)


NO_PAIRS = "the originals are not those of the copies one by one: other files, or another order"


def pairs_of(clean: ImageSet, copies: ImageSet, count: int, what: str, seed: int) -> Tensor:
    """The numbers of the pairs that a hacker of a seed has, balanced over the classes, int64 [count].

    Raises:
        ConfigError: the originals are not those of the copies one by one.
    """
    if not clean.aligned(copies):
        raise ConfigError(f"{what}: {NO_PAIRS}")
    return clean.choose(count, generator_for(seed, "clean subset"))


@dataclass(eq=False)
class Pairs(Denoised):
    """A denoiser learnt from a few true pairs, min_D mean ||D(x_u) - x||^2, and applied to all published images.

    A U-Net told the labels took less out of a sealed copy with 500 pairs, and labels told this network nothing more
    (trials, `pairs, told labels`).

    Args:
        clean: all originals, in the order of the published images.
        pairs: how many of them the hacker has; the same for every hacker of a seed, balanced over the classes.
    """

    name = "pairs"
    knows = "pairs"
    tried = ("10", "100", "500")
    amount = "pairs"
    before = 3.0
    by_epochs = False
    clean: ImageSet
    pairs: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pairs = originals_for(self.clean, self.pairs, "pairs", "pairs")

    def learn(self, images: ImageSet) -> None:
        """Raises: ConfigError, as `pairs_of`."""
        chosen = pairs_of(self.clean, images, self.pairs, "pairs", self.seed)
        copies, originals = (each.images[chosen].to(self.device) for each in (images, self.clean))

        def error(network: nn.Module, pick: Tensor, rng: torch.Generator) -> Tensor:
            copy, original = patches([to_float(copies[pick]), to_float(originals[pick])], rng)
            return (network(copy) - original).square().mean()

        result = self.fitted(images.channels, error, len(chosen))
        copy, original = (each[result.held_out].cpu() for each in (copies, originals))
        self.findings = {**self.findings, "rms_left": left_over(self.pixels(copy), copy, original)}


def left_over(seen: Tensor, copies: Tensor, originals: Tensor) -> float | None:
    """rms(seen - o) / rms(u - o), all uint8 [N, C, H, W]: 1 for who does nothing; None where nothing was changed."""
    after, before = ((each.float() - originals.float()).square().mean().sqrt() for each in (seen, copies))
    return round(float(after / before), 4) if before > 0 else None
