"""Protection behind a reversible key: a perturbation of any shape, which the key undoes to the last bit but one.

    x_u = 2 floor(x / 2) + s m + c,   s m = delta on average,   delta = (epsilon - 1) tanh(gain * d),   d = G(x, y)

(`uge.keys.reversible`). Every value moves by m, epsilon / 2 at the least, and may go either way: the generator has the
whole space of perturbations, where a null space leaves it one direction in s. A baseline's perturbation is published in
the same way, which gives it an authorised network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.keys.reversible import Reversible
from uge.protect.keyed import KeyedConfig, KeyedProtection, one_copy_each


@dataclass(frozen=True)
class ReversibleConfig(KeyedConfig):
    """Settings of the protection behind a reversible key, those of `KeyedConfig`."""

    gain: float = 5.0
    class_patterns: int = 8


class ReversibleProtection(KeyedProtection[Reversible]):
    """Makes the copy that a reversible key undoes."""

    def __init__(self, clean: ImageSet, space: Reversible, config: ReversibleConfig, **options: Any) -> None:
        if config.epsilon_255 != space.epsilon_255:
            raise ConfigError(
                f"epsilon {config.epsilon_255} asked for, but the key is for {space.epsilon_255}: leave --epsilon out,"
                " or make a key with it"
            )
        super().__init__(clean, space, config, **options)

    def _perturbed(
        self, images: Tensor, labels: Tensor, space: Reversible, nonces: Sequence[bytes]
    ) -> tuple[Tensor, Tensor]:
        wanted = (space.epsilon_255 - 1) * (self.config.gain * self._proposal(images, labels)).tanh()
        copies = space.publish(images, wanted.detach().cpu(), nonces).to(self.device).float()
        base = (images & 0xFE).float().to(self.device)
        edge = (base < space.epsilon_255 - 1) | (base > 255 - space.epsilon_255)
        return copies + (wanted - wanted.detach()), edge.float().mean()


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
    "quick": ReversibleConfig(epochs=6, generator_width=16, surrogates=("vgg:depth=8,width=8", "convnet:width=16")),
    "default": ReversibleConfig(),
    "strong": ReversibleConfig(epochs=60, generator_width=48, run_epochs=20),
}
