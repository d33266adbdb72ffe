"""What the key is worth: a hacker with a part of it, with another one, or with the key itself.

All of them train the recipient's network in the order and with the augmentation of the recipient (see `Audit`), so that
nothing but the key differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uge.attack.options import number
from uge.data.images import ImageSet
from uge.keys.key import Key
from uge.training import PlainTraining, Recipe


class NoisyKey(PlainTraining):
    """Begin with a noisy copy of the key's initial weights.

        theta = theta_0 + r * rms(theta_0) * xi,   xi ~ N(0, 1),   tensor by tensor

    A sealed key cannot be known roughly: any wrong bit opens nothing.

    Args:
        untrained: the recipient's network.
        noise: r; at 0 this is the recipient.
    """

    knows = "key"
    tried: ClassVar[Sequence[str]] = ("0", "0.1", "0.3", "1")
    amount = "noise, relative"

    def __init__(self, untrained: nn.Module, noise: str | float = 0.1) -> None:
        self.untrained = untrained
        self.noise = number("noisy-key: noise", noise, 0, 1000)

    @classmethod
    def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
        key = given["key"]
        return "a sealed key that is wrong opens nothing" if key is not None and key.opens else ""

    @torch.no_grad()
    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        own = deepcopy(self.untrained)
        for weight in own.parameters():
            weight.copy_(self.changed(weight, generator))
        return own, recipe

    def changed(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """One tensor of the key as this hacker has it."""
        xi = torch.randn(weight.shape, generator=generator)
        return weight + self.noise * weight.square().mean().sqrt() * xi


class WrongKey(NoisyKey):
    """Use another key of initial weights as if it were the right one: the same values, drawn in another order."""

    knows = "architecture"
    tried = ("",)
    amount = ""

    def __init__(self, untrained: nn.Module) -> None:
        super().__init__(untrained)

    def changed(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        return weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view(weight.shape)


class StolenKey(PlainTraining):
    """Train as the recipient does: a control, which must equal him bit for bit."""

    knows = "key"

    def __init__(self, untrained: nn.Module, key: Key) -> None:
        self.untrained, self.key = untrained, key

    @classmethod
    def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
        opened = given["key"].open_each(images.images[:1])[1]
        return "" if opened.all() else "letters are opened at the photographs' own sizes"

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        return deepcopy(self.untrained), recipe

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """The view; originals, which hold no letters, as the recipient sees what was never published."""
        views, opened = self.key.open_each(images.images)
        return views if opened.all() else self.at_test(images).images, images.labels

    def at_test(self, images: ImageSet) -> ImageSet:
        return images.with_images(self.key.seen(images.images))
