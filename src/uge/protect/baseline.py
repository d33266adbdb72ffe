"""What the protections of other papers share: no key, one seed, and bounds that hold in the published 8-bit images.

They are here to be compared with. None has an authorised network: what they publish is meant to be learnt by nobody.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.protect.checkpoint import claim_workdir
from uge.records import config_hash

SCOPES = ("sample", "class")
OnStep = Callable[[dict[str, Any], int], None]


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


class Baseline(ABC, Generic[C]):
    """A protection without a key.

    Args:
        clean: the originals.
        config: settings.
        seed: decides everything; the same data, settings and seed give the same copy on the same machine.
        workdir: where checkpoints go; None keeps none.
        device: where to compute.
        checkpoint_seconds: least time between two checkpoints.
    """

    def __init__(
        self,
        clean: ImageSet,
        config: C,
        *,
        seed: int,
        workdir: Path | None = None,
        device: torch.device | str = "cpu",
        checkpoint_seconds: float = 30.0,
    ) -> None:
        self.clean = clean
        self.config = config
        self.seed = seed
        self.workdir = workdir
        self.device = torch.device(device)
        self.checkpoint_seconds = checkpoint_seconds
        self.log: list[dict[str, Any]] = []

    def train(self, on_step: OnStep | None = None) -> None:
        """Whatever comes before the copies; most baselines need nothing.

        Args:
            on_step: called after each step with its log row and the number of all steps.

        Raises:
            PublishError: the work folder belongs to another run.
        """
        if self.workdir is not None:
            claim_workdir(self.workdir, self.identity())

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

    def identity(self) -> str:
        """Names this run: method, data, settings and seed."""
        return config_hash(
            {
                "method": type(self).__name__,
                "data": self.clean.digest(),
                "config": self.config.to_dict(),
                "seed": self.seed,
            }
        )


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
