"""Reversible keys: every value of a copy says, enciphered in its lowest bit, which way it was moved.

For one value x of an 8-bit image, with h = floor(x / 2), and from the key stream a bit k and a magnitude m:

    publish  x_u = 2 h + s m + c        s = 2 b - 1 in {-1, +1} is the protector's choice, c = b xor k
    view     c = (x_u + m) mod 2,  b = c xor k,  V = x_u - s m - c = 2 h

x_u + m = 2 h + (s + 1) m + c, and (s + 1) m is even: the recipient reads c, then b, and has 2 h back as an integer,
whatever signs were chosen. The view of an original is 2 floor(x / 2) itself: the image but for its lowest bit.

Without the secret k is a one-time pad: c is a fair coin that knows nothing of b, m or x. A hacker is left with
2 h + s m under one bit of noise, an ordinary perturbed image.

    bound    |x_u - x| <= m + 1 <= epsilon
    m        drawn evenly from ceil((epsilon - 1) / 2) .. epsilon - 1, or epsilon - 1 throughout
    range    where 2 h < m the value goes up, where 2 h + m > 254 it goes down, whatever is wished
    stream   bytes of the key stream "reversible", one a value in the order channel, row, column: lowest bit k, the
             other seven place m; images whose channels are all equal have one byte a pixel, so that gray stays gray

Reversible data hiding for adversarial examples is due to Liu et al., "Unauthorized AI cannot recognize me: Reversible
adversarial example", Pattern Recognition 2023, arXiv 1811.00189; there the compressed perturbation is hidden in the
image, here one bit a value, so that nothing is searched for and every perturbation fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from uge.errors import ConfigError, unknown_name
from uge.keys.keyed_view import KeyedView

MAGNITUDES = ("half", "full")


@dataclass(frozen=True)
class Reversible(KeyedView):
    """The secret of a reversible key, and how far it lets a value move.

    Attributes:
        epsilon_255: L_inf bound of every copy in 8-bit steps.
        magnitudes: "half": m is anything from half the bound up; "full": epsilon - 1, so that every value moves as far
            as the bound lets all of them: a stronger and more visible perturbation of the same epsilon.
    """

    kind: ClassVar[str] = "reversible"
    epsilon_255: int = 8
    magnitudes: str = "half"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.epsilon_255 <= 64:
            raise ConfigError(f"epsilon {self.epsilon_255} of a reversible key is outside 2..64 (8-bit steps)")
        if self.magnitudes not in MAGNITUDES:
            raise unknown_name("magnitudes", self.magnitudes, MAGNITUDES)

    @property
    def layout(self) -> dict[str, Any]:
        return {"epsilon_255": self.epsilon_255, "magnitudes": self.magnitudes}

    @property
    def layout_text(self) -> str:
        return str(self.epsilon_255) if self.magnitudes == "half" else f"{self.epsilon_255}|{self.magnitudes}"

    def publish(self, images: Tensor, wanted: Tensor, nonces: Sequence[bytes]) -> Tensor:
        """x_u, uint8 [N, C, H, W].

        Args:
            images: x, uint8 [N, C, H, W].
            wanted: the perturbation that is asked for, float32 [N, C, H, W] in 8-bit steps. Dither makes s m that on
                average, as far as m reaches. A gray image takes the mean over its channels.
            nonces: one an image.
        """
        gray = _gray(nonces)
        pad, magnitude = self._pad_and_magnitude(nonces, images.shape[1:])
        dither = (self._stream("rounding", nonces, images.shape[1:]) + 0.5) / 256
        share = (1 + torch.where(gray, wanted.mean(1, keepdim=True), wanted) / magnitude) / 2
        base = self.integer_view_of_originals(images)
        up = ((share > dither) | (base < magnitude)) & (base + magnitude <= 254)
        return (base + torch.where(up, magnitude, -magnitude) + (up ^ pad)).to(torch.uint8)

    def integer_view(self, copies: Tensor, nonces: Sequence[bytes]) -> Tensor:
        pad, magnitude = self._pad_and_magnitude(nonces, copies.shape[1:])
        carried = (copies.int() + magnitude) & 1
        up = (carried == 1) ^ pad
        return copies.int() - torch.where(up, magnitude, -magnitude) - carried

    def integer_view_of_originals(self, images: Tensor) -> Tensor:
        return (images & 0xFE).int()

    def view(self, copies: Tensor, nonces: Sequence[bytes]) -> Tensor:
        return self.integer_view(copies, nonces).float()

    def view_of_originals(self, images: Tensor) -> Tensor:
        return self.integer_view_of_originals(images).float()

    view_of_others = view_of_originals

    def _pad_and_magnitude(self, nonces: Sequence[bytes], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """k, bool, and m, int32, both [N, C, H, W]."""
        stream = self._stream("reversible", nonces, shape)
        most = self.epsilon_255 - 1
        least = -(-most // 2) if self.magnitudes == "half" else most
        return (stream & 1).bool(), least + ((stream >> 1).int() * (most - least + 1) >> 7)

    def _stream(self, purpose: str, nonces: Sequence[bytes], shape: Sequence[int]) -> Tensor:
        """One byte a value, uint8 [N, C, H, W]; a gray image's channels have the same."""
        count = math.prod(shape)
        words = self.key_stream(purpose, nonces, shape, -(-count // 8))
        stream = torch.from_numpy(np.ascontiguousarray(words).view(np.uint8)[:, :count].copy())
        stream = stream.view(len(nonces), *shape)
        return torch.where(_gray(nonces), stream[:, :1], stream)


def _gray(nonces: Sequence[bytes]) -> Tensor:
    """bool [N, 1, 1, 1]: whether an image's channels are equal, which its nonce says."""
    return torch.tensor([bool(nonce[0] & 1) for nonce in nonces], dtype=torch.bool).view(-1, 1, 1, 1)
