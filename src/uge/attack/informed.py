"""Hackers who learn a U-Net from images of their own, told more of a copy than its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.denoiser import Trained, patches
from uge.attack.options import count
from uge.data.images import ImageSet, to_float, to_uint8
from uge.data.sources import load
from uge.errors import ConfigError
from uge.filters import grayscale
from uge.networks.unet import UNet
from uge.runtime import generator_for, seed_for

NO_DATA = "needs images of the hacker's own: data=DATA"
DrawPairs = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]  # numbers, random draws -> copies, originals


@dataclass(eq=False)
class Informed(Trained):
    """A hacker who learns a U-Net from images of his own and trains on what it makes of the published ones.

    It is told the labels, where his own images are of the same classes. So test images are shown as they are.
    Findings: `denoiser_steps`, `denoiser_plateau`, `own_images`. What he gains on the published copy he cannot know.

    Args:
        settings: what the copy's manifest says.
        data: DATA of the hacker's own images, of any size and colours.
        images: how many of them he uses at most; the other options are those of `Trained`.
    """

    knows = "method"
    settings: Mapping[str, Any]
    data: str = ""
    images: int = count(4000, 2)
    _: KW_ONLY
    steps: int = count(6000, 1)

    def own(self, images: ImageSet) -> ImageSet:
        """His own images in the size and colours of the published ones; labels mean the same where classes do.

        Raises:
            UgeError: there are none, or they cannot be read.
        """
        if not self.data:
            raise ConfigError(f"{self.name}: {NO_DATA}")
        own = load(self.data, "train", image_size=images.image_size, convert=True)
        own = own.take(self.images, generator_for(self.seed, self.name, "own images"))
        if own.channels < images.channels:
            own = own.with_images(own.images.expand(-1, images.channels, -1, -1).contiguous())
        elif own.channels > images.channels:
            own = own.with_images(to_uint8(grayscale(to_float(own.images))[:, :1]))
        return own.like(images)

    def learn(self, pairs: DrawPairs, told: Tensor, channels: int) -> None:
        """Train the U-Net until images held out say that no more is to be had.

        `pairs` gives copies and originals float32 [B, C, H, W] of some of the hacker's images, C being `channels`;
        `told` float32 [N, T] has one row an image.
        """
        told = told.to(self.device)
        network = UNet(channels, told.shape[1], self.width, seed=seed_for(self.seed, self.name))

        def error(network: nn.Module, pick: Tensor, rng: torch.Generator) -> Tensor:
            copies, originals = patches([each.to(self.device) for each in pairs(pick, rng)], rng)
            if torch.rand((), generator=rng) < 0.5:
                copies, originals = copies.flip(3), originals.flip(3)
            return (network(copies, told[pick]) - originals).square().mean()

        self.learnt(network, error, len(told))
        self.findings = {**self.findings, "own_images": len(told)}

    @torch.no_grad()
    def applied(self, x: Tensor, told: Tensor) -> Tensor:
        """D(x, c) on the CPU, float32 [N, C, H, W]."""
        parts = zip(x.split(250), told.split(250), strict=True)
        return torch.cat([self.network(part.to(self.device), row.to(self.device)).cpu() for part, row in parts])


def labels_told(images: ImageSet, own: ImageSet) -> Tensor:
    """One row an image: its class among those of `own`, or nothing where the two sets have other classes."""
    if images.class_names != own.class_names:
        return torch.zeros(len(images), own.classes)
    return F.one_hot(images.labels, images.classes).float()
