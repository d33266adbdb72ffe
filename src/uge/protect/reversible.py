"""Protection behind a reversible key: a perturbation of any shape, which the key undoes, all but the lowest bit.

    x_u = 2 floor(x / 2) + s m + c,   s m = delta on average
    delta = (epsilon - 1) ((1 - a) tanh(gain d) + a t),   d = G(x, y)

with t the texture of the class (`uge.protect.texture`) in a share a of the budget, the rest as in
`uge.keys.reversible`. Every value moves by m, epsilon / 2 at the least, and may go either way: the generator has the
whole space of perturbations, where a null space leaves it one direction in s. A baseline's perturbation is published in
the same way, which gives it an authorised network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.keys.reversible import Reversible
from uge.protect.keyed import KeyedConfig, KeyedProtection, one_copy_each
from uge.protect.protection import RunOptions
from uge.protect.texture import cells_of, laid, tiles
from uge.runtime import generator_for

TILE = 8  # side of a texture's cells in pixels


@dataclass(frozen=True)
class ReversibleConfig(KeyedConfig):
    """Settings of the protection behind a reversible key, besides those of `KeyedConfig`.

    Attributes:
        texture: a, the share of the budget that the class's texture has. It teaches hackers without colour, where the
            generator finds next to nothing to teach with, and the generator those who take away fine detail.
    """

    gain: float = 5.0
    run_epochs: int = 10
    filters: tuple[str, ...] = ("none", "none", "grayscale", "grayscale", "blur", "jpeg:30")
    epochs: int = 20
    generator_width: int = 24
    class_patterns: int = 8
    texture: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.texture < 1:
            raise ConfigError(
                f"texture is a share from 0 up to 1, got {self.texture}; the method texture needs no generator"
            )


class ReversibleProtection(KeyedProtection[Reversible]):
    """Makes the copy that a reversible key undoes."""

    def __init__(self, clean: ImageSet, space: Reversible, config: ReversibleConfig, **run: Unpack[RunOptions]) -> None:
        if config.epsilon_255 != space.epsilon_255:
            raise ConfigError(
                f"epsilon {config.epsilon_255} asked for, but the key is for {space.epsilon_255}: leave --epsilon out,"
                " or make a key with it"
            )
        super().__init__(clean, space, config, **run)

    def _perturbed(
        self, images: Tensor, labels: Tensor, space: Reversible, nonces: Sequence[bytes]
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(self.config, ReversibleConfig)
        share = self.config.texture
        wanted = (1 - share) * (self.config.gain * self._proposal(images, labels)).tanh()
        if share:
            wanted = wanted + share * self._texture(labels, space, nonces)
        wanted = (space.epsilon_255 - 1) * wanted
        copies = space.publish(images, wanted.detach().cpu(), nonces).to(self.device).float()
        base = (images & 0xFE).float().to(self.device)
        edge = (base < space.epsilon_255 - 1) | (base > 255 - space.epsilon_255)
        return copies + (wanted - wanted.detach()), edge.float().mean()

    def _texture(self, labels: Tensor, space: Reversible, nonces: Sequence[bytes]) -> Tensor:
        """t float32 [B, 1, H, W], at places from the key."""
        size = self.clean.image_size
        rows, columns = cells_of(size, TILE)
        words = space.key_stream("texture", nonces, (self.clean.channels, *size), 2 * rows * columns)
        places = torch.from_numpy((words >> 32).astype(np.int64) * TILE >> 32).view(len(nonces), rows, columns, 2)
        return laid(self._tiles[labels], places, size).to(self.device)

    @cached_property
    def _tiles(self) -> Tensor:
        return tiles(self.clean.classes, TILE, generator_for(self.seed, "texture tiles"))


def coded(clean: ImageSet, copies: Iterator[Tensor], space: Reversible, nonces: Sequence[bytes]) -> Iterator[Tensor]:
    """The copies of any protection within the key's epsilon, as near to them as a reversible key allows.

    Args:
        clean: the originals.
        copies: in their order, uint8 [B, C, H, W] batch by batch.
        space: of the key.
        nonces: one an image.
    """

    def each() -> Iterator[Tensor]:
        begin = 0
        for part in copies:
            chosen = slice(begin, begin + len(part))
            originals = clean.images[chosen]
            yield space.publish(originals, (part.int() - originals.int()).float(), nonces[chosen])
            begin += len(part)

    return one_copy_each(each(), nonces)


PRESETS: dict[str, ReversibleConfig] = {
    "quick": ReversibleConfig(
        epochs=6, run_epochs=6, generator_width=16, surrogates=("vgg:depth=8,width=8", "convnet:width=16")
    ),
    "default": ReversibleConfig(),
    "strong": ReversibleConfig(epochs=60, generator_width=48, run_epochs=20),
    "combined": ReversibleConfig(  # for keys of epsilon 16: at 8 plain hackers learn more from it than from the default
        epochs=40, filters=("none", "grayscale", "blur", "jpeg:30", "grayscale+blur", "grayscale+jpeg:30")
    ),
}
PRESETS["misdirecting"] = replace(PRESETS["combined"], misdirection=1.0)
PRESETS["misdirecting-large"] = replace(PRESETS["misdirecting"], epochs=80, generator_width=64)  # asks for a GPU
