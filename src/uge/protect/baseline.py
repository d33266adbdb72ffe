"""What the protections of other papers share: one seed, and bounds that hold in the published 8-bit images.

They are here to be compared with. None but the learnability lock has an authorised network: what they publish is meant
to be learnt by nobody.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from uge.errors import ConfigError
from uge.protect.protection import OnStep, Protection

SCOPES = ("sample", "class")


@dataclass(frozen=True)
class BaselineConfig:
    """Settings of a baseline.

    Attributes:
        bound: what limits the change of an image; published with the settings. Baselines with an L_inf bound have
            a setting `epsilon_255` besides, the others publish no epsilon asked, but the one measured.
    """

    bound: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        return {"bound": self.bound} | asdict(self)


C = TypeVar("C", bound=BaselineConfig)


class Baseline(Protection[C]):
    """A protection without a key. Most have nothing to train."""

    def train(self, on_step: OnStep | None = None) -> None:
        self.claim()

    @torch.no_grad()
    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        """The protected copies in order, uint8 [B, C, H, W] batch by batch; the same for every batch size."""
        for begin in range(0, len(self.clean), batch_size):
            numbers = range(begin, min(begin + batch_size, len(self.clean)))
            chosen = slice(numbers.start, numbers.stop)
            yield self.protected(self.clean.images[chosen], self.clean.labels[chosen], numbers).contiguous()

    @abstractmethod
    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        """The copies uint8 [B, C, H, W] of some originals.

        Args:
            images: uint8 [B, C, H, W].
            labels: int64 [B].
            numbers: their places in `clean`, for draws that are an image's own.
        """

    def named(self) -> dict[str, Any]:
        return {"method": type(self).__name__}


def check_scope(scope: str) -> None:
    """Refuse a scope that is none.

    Raises:
        ConfigError: neither "sample" nor "class".
    """
    if scope not in SCOPES:
        raise ConfigError(f"unknown scope '{scope}'; choose from: {', '.join(SCOPES)}")


def check_epsilon(epsilon_255: int) -> None:
    """Refuse an L_inf bound outside 1..128 steps.

    Raises:
        ConfigError: it is.
    """
    if not 1 <= epsilon_255 <= 128:
        raise ConfigError(f"epsilon {epsilon_255} is outside 1..128 (8-bit steps)")


def check_rms(rms_255: float) -> None:
    """Refuse a root mean square outside 1..128 steps: below 1 rounding would take it away.

    Raises:
        ConfigError: it is.
    """
    if not 1 <= rms_255 <= 128:
        raise ConfigError(f"rms_255 {rms_255} is outside 1..128 (8-bit steps)")


def add_within_linf(images: Tensor, delta: Tensor, epsilon_255: int) -> Tensor:
    """x_u = clip(x + delta) with |x_u - x| <= epsilon in whole steps.

    Args:
        images: x, uint8 [B, C, H, W].
        delta: in 8-bit steps, broadcast over images.
        epsilon_255: the bound; x is whole, so that rounding never leads past it.

    Returns:
        uint8 [B, C, H, W].
    """
    return (images + delta.clamp(-epsilon_255, epsilon_255).round()).clamp(0, 255).to(torch.uint8)


def add_within_rms(images: Tensor, delta: Tensor, rms_255: float) -> Tensor:
    """x_u = clip(x + s delta) with the largest s (in steps of 0.2%) that keeps the root mean square after rounding.

    An L2 norm of e on the scale [0, 1] is rms_255 = 255 e / sqrt(C H W): the same visibility at any image size.

    Args:
        images: x, uint8 [B, C, H, W].
        delta: any scale, float32 [B, C, H, W]; an image whose delta is zero stays as it is.
        rms_255: bound on the root mean square of each image's change, in 8-bit steps.

    Returns:
        uint8 [B, C, H, W].
    """

    def rms(change: Tensor) -> Tensor:
        return change.square().mean((1, 2, 3), keepdim=True).sqrt()

    scaled = delta * (rms_255 / rms(delta).clamp_min(1e-12))
    while True:
        change = scaled.round()
        over = rms(change) > rms_255
        if not over.any():  # soon: rounding adds a 12th to a mean square of 36
            break
        scaled = torch.where(over, scaled * 0.998, scaled)
    return (images + change).clamp(0, 255).to(torch.uint8)
