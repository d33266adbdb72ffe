"""What protections that write letters share: one key, its layouts, and levels that become copies."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.keys.key import Key
from uge.keys.letter import channels_equal, derive, seal
from uge.keys.sealed import SealedKey
from uge.keys.shift import MOST_LEVEL, TOP, Layout, layout_of
from uge.protection import Protection, RunOptions, Settings
from uge.runtime import device_in_turn


@dataclass(frozen=True)
class LetterConfig(Settings):
    """What every protection that writes letters is told: the L_inf bound of its copies in 8-bit steps."""

    most_epsilon = 255
    epsilon_255: int = 16


L = TypeVar("L", bound=LetterConfig)


class LetterProtection(Protection[L]):
    """Copies whose lowest bits are a letter: one key, layouts by shape and channels, and the seal.

    Raises:
        ConfigError: several keys, for an image has one letter; images that have no room for it.
    """

    takes = SealedKey.kind
    enlarges = True

    def __init__(self, clean: ImageSet, keys: Sequence[Key], config: L, **run: Unpack[RunOptions]) -> None:
        if len(keys) > 1:
            raise ConfigError("an image has one letter: give one key, and its recipient's file to everybody authorised")
        super().__init__(clean, keys, config, **run)
        assert isinstance(keys[0], SealedKey)  # `takes` says so
        self.secret = keys[0].secret
        equal = channels_equal(clean.images)  # such images have a layout of their own
        self.kinds = [kind.nonzero()[:, 0] for kind in (~equal, equal) if kind.any()]
        for kind in self.kinds:
            self.layout(clean.images[kind[:1]])  # what has no room for a letter fails here

    def check_sizes(self, sizes: Iterable[tuple[int, int]]) -> None:
        channels = torch.where(channels_equal(self.clean.images), 1, self.clean.channels).tolist()
        for (size, count), name in dict(zip(zip(sizes, channels, strict=True), self.clean.names, strict=True)).items():
            try:
                layout_of((count, *size), self.config.epsilon_255)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error

    def part(self, numbers: range, turn: int = 0) -> Self:
        """This protection, of these originals alone."""
        part = copy.copy(self)
        part.clean = self.clean.subset(torch.arange(numbers.start, numbers.stop))
        part.kinds, part.log, part.keys = [], [], []
        part.device = device_in_turn(self.device, turn)
        return part

    def layout(self, images: Tensor) -> Layout:
        """The letter's layout for images [B, C, H, W] that all have equal channels, or none has."""
        channels, height, width = images.shape[1:]
        gray = bool(channels_equal(images[:1]))
        return layout_of((1 if gray else channels, height, width), self.config.epsilon_255)

    def sealed(self, images: Tensor, field: Tensor, nodes: Tensor) -> Tensor:
        """The copies of images of one layout, uint8 [B, C, H, W], from levels that are not rounded yet."""
        rounded = [level(free).to(torch.int8).cpu() for free in (field, nodes)]
        return seal(images, rounded[0], rounded[1], self.secret, self.config.epsilon_255)


def drawn_order(secret: bytes, purpose: str, count: int) -> Tensor:
    """The numbers 0..count-1 in an order that the key decides, int64 [count]."""
    stream = hashlib.shake_256(derive(secret, purpose)).digest(8 * count)
    return torch.frombuffer(bytearray(stream), dtype=torch.int64).argsort()


def rendered(images: Tensor, field: Tensor, nodes: Tensor, layout: Layout, rng: torch.Generator) -> Tensor:
    """x_u with gradients; coins stand for letters.

    Rounding passes gradients straight through (Bengio, Léonard & Courville 2013). The bounds 0 and 127 are kept value
    by value here, and node by node in the end.

    Args:
        images: uint8 [B, C, H, W] of one layout, on the CPU.
        field: proposed levels before they are rounded, float32 [B, rows, columns].
        nodes: the same [B, C, rows, columns], empty where there are none.
        layout: of the letter.
        rng: draws the coins.

    Returns:
        float32 [B, C, H, W] in [0, 1], where `field` lies.
    """
    size = images.shape[2], images.shape[3]
    half = (images >> 1).float().to(field.device)
    field, nodes = (_through(free, level(free)) / MOST_LEVEL for free in (field, nodes))
    shift = _enlarged(field[:, None], layout.field_step, size)
    if layout.node_step:
        shift = shift + _enlarged(nodes, layout.node_step, size)
    shift = layout.reach * shift.clamp(-1, 1)
    shift = torch.minimum(torch.maximum(shift, -half), TOP - half)
    coins = torch.randint(2, half.shape, generator=rng).to(half.device)
    return (2 * (half + _through(shift, shift.round())) + coins) / 255


def level(free: Tensor) -> Tensor:
    """The nearest level."""
    return free.clamp(-MOST_LEVEL, MOST_LEVEL).round()


def _through(free: Tensor, rounded: Tensor) -> Tensor:
    """The rounded numbers, with the gradient of the free ones."""
    return free + (rounded - free).detach()


def resized_levels(levels: Tensor, nodes: Sequence[int]) -> Tensor:
    """Levels float32 [B, C, rows, columns] at another number of nodes, bilinear, antialiased."""
    return F.interpolate(levels, list(nodes), mode="bilinear", align_corners=False, antialias=True)


def _enlarged(values: Tensor, step: int, size: tuple[int, int]) -> Tensor:
    """Nodes [B, C, rows, columns] -> pixels [B, C, H, W], bilinearly at half-pixel centres, as letters have it."""
    if step == 1:
        return values
    rows, columns = (_weights(side, step).to(values.device) for side in size)
    return rows @ values @ columns.T


def _weights(length: int, step: int) -> Tensor:
    """float32 [length, nodes]: how nodes every `step` pixels make a line of pixels."""
    count = -(-length // step)
    place = ((torch.arange(length) + 0.5) / step - 0.5).clamp(0, count - 1)
    return (1 - (place[:, None] - torch.arange(count)).abs()).clamp_min(0)
