"""Autoregressive perturbations (AR): Sandoval-Segura et al., "Autoregressive Perturbations for Data Poisoning".

NeurIPS 2022, arXiv 2206.03693. Class k has for each channel eight coefficients that sum to 1, and every value of the
perturbation follows from the eight others of the 3x3 window that it closes,

    v_(i,j) = sum_m beta_(k,m) w_m(i,j),   beta ~ N(0, I) / sum,

from a start of Gaussian noise, two rows and two columns, which is an image's own. The start is cut off with four rows
and columns, and the rest scaled to an L2 norm of 1 for CIFAR-10, 3 at 96x96 and 7 at 224x224: the same change of a
value. A convolution with the coefficients tells the class.

Deviations: images larger than 32x32 are covered with signals of that size, as few processes stay steady for longer (the
authors' code lets those that were found at 32x32 run over the whole image, where they die out or grow); the L2 norm
holds after rounding; all channels have the same share of it; drawn processes are kept by a rule of our own
(`_is_kept`), in the spirit of the paper's search: neither dying out nor exploding, not flat, and not like a process
kept before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.baselines.baseline import Baseline, BaselineConfig, add_within_rms
from uge.errors import ConfigError
from uge.runtime import generator_for

START, CROP = 2, 4  # rows and columns of Gaussian noise; rows and columns that are cut off
TILE = 32  # largest side of a signal in pixels
CANDIDATES, MOST_ROUNDS = 256, 200
STEADY = 3.0  # a kept process varies in the last quarter of an image by at most this factor more or less than before
DISTINCT = 0.2  # the least response of the filters of one process to another, relative to the signal


@dataclass(frozen=True)
class ARConfig(BaselineConfig):
    """Settings of AR.

    Attributes:
        rms_255: bound on the root mean square of an image's change, in 8-bit steps; 4.6 is the L2 norm of 1 at 3x32x32.
    """

    bound = "L2: rms_255 times the root of the number of values; no L_inf bound"
    rms_255: float = 4.6


class ARProtection(Baseline[ARConfig]):
    """Adds a signal of each class's own autoregressive processes."""

    Config = ARConfig

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        height, width = self.clean.image_size
        rows, columns = -(-height // TILE), -(-width // TILE)
        shape = (self.clean.channels, rows, columns, *self._tile)
        canvas = torch.stack(
            [torch.randn(shape, generator=generator_for(self.seed, "ar", "start", n)) for n in numbers]
        )
        beta = self._processes[labels][:, :, None, None].expand(*canvas.shape[:4], 8)
        tiles = autoregress(canvas.flatten(0, 3), beta.flatten(0, 3)).view(canvas.shape)[..., CROP:, CROP:]
        tiles = tiles / tiles.square().mean((4, 5), keepdim=True).sqrt().clamp_min(1e-12)  # channels weigh the same
        delta = tiles.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
        return add_within_rms(images, delta, self.config.rms_255)

    @property
    def _tile(self) -> tuple[int, int]:
        """Height and width of a signal before its start is cut off."""
        height, width = (min(side, TILE) + CROP for side in self.clean.image_size)
        return height, width

    @cached_property
    def _processes(self) -> Tensor:
        """beta, float32 [K, C, 8].

        Raises:
            ConfigError: not enough different processes were found, as there are too many classes.
        """
        generator = generator_for(self.seed, "ar", "processes")
        wanted = self.clean.classes * self.clean.channels
        kept: list[Tensor] = []
        for _ in range(MOST_ROUNDS):
            drawn = torch.randn(CANDIDATES, 8, generator=generator)
            drawn = drawn / drawn.sum(1, keepdim=True)
            signals = autoregress(torch.randn(CANDIDATES, *self._tile, generator=generator), drawn)
            for beta, signal in zip(drawn, signals[:, CROP:, CROP:], strict=True):
                if _is_kept(signal, kept):
                    kept.append(beta)
                if len(kept) == wanted:
                    return torch.stack(kept).view(self.clean.classes, self.clean.channels, 8)
        raise ConfigError(f"found {len(kept)} of {wanted} different autoregressive processes; use fewer classes")


def autoregress(canvas: Tensor, beta: Tensor) -> Tensor:
    """Let each process run on from the noise in its first rows and columns, which stay: float32 [M, H, W] -> the same.

    `beta` float32 [M, 8] has the weights of the 3x3 window row by row, without the corner that they predict.
    """
    canvas = canvas.permute(1, 2, 0).contiguous()  # what is read together lies together
    height, width, _ = canvas.shape
    weights = beta.t().contiguous()  # [8, M]
    for i in range(START, height):
        above = sum(
            weights[3 * row + column] * canvas[i - 2 + row, column : width - 2 + column]
            for row in range(2)
            for column in range(3)
        )
        for j in range(START, width):
            canvas[i, j] = above[j - START] + weights[6] * canvas[i, j - 2] + weights[7] * canvas[i, j - 1]  # type: ignore[index]  # a sum of tensors is a tensor
    return canvas.permute(2, 0, 1)


def _is_kept(signal: Tensor, kept: list[Tensor]) -> bool:
    """Whether a signal [H, W] of a new process is steady, not flat, and unlike those of the processes kept before."""
    if not signal.isfinite().all() or signal.abs().max() > 1e6:
        return False
    height, width = signal.shape
    early = signal[: -(-height // 2), : -(-width // 2)].std()
    late = signal[height // 2 :, width // 2 :].std()
    size = signal.square().mean().sqrt()
    if not early / STEADY < late < early * STEADY or signal.std() < size / 2:
        return False
    if not kept:
        return True
    filters = torch.cat([torch.stack(kept), -torch.ones(len(kept), 1)], 1)
    filters = (filters / filters.norm(dim=1, keepdim=True)).view(-1, 1, 3, 3)
    responses = F.conv2d((signal / size)[None, None], filters)[0]
    return bool(responses.square().mean((1, 2)).sqrt().min() > DISTINCT)
