"""Linearly separable perturbations (LSP): Yu et al., "Availability Attacks Create Shortcuts", KDD 2022.

arXiv 2111.00898. Points of class k are drawn about a corner of a hypercube, one value for each patch and channel,

    v = A_k z + s c_k,   z ~ N(0, I),   A_k uniform on [-1, 1]^(d x d),   c_k in {-1, 1}^d

so that a linear classifier tells the classes apart (d = channels times patches). Each value fills its patch, and the
perturbation is scaled to an L2 norm of 6/255 sqrt(C H W), which is 1.30 for CIFAR-10.

Deviations: patches at the right and lower edge are cut where the size is no multiple of the patch; the L2 norm holds
after rounding; corners are drawn until all classes have one of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from uge.baselines.baseline import Baseline, BaselineConfig, add_within_rms
from uge.errors import ConfigError
from uge.runtime import generator_for

MOST_VALUES = 4096  # A_k has the square of this many entries


@dataclass(frozen=True)
class LSPConfig(BaselineConfig):
    """Settings of LSP.

    Attributes:
        rms_255: bound on the root mean square of an image's change, in 8-bit steps.
        patch: side of a patch in pixels; the paper has 8 at 32x32.
        separation: s, half the side of the hypercube; within a class a value varies by about sqrt(d / 3).
    """

    bound = "L2: rms_255 times the root of the number of values; no L_inf bound"
    rms_255: float = 6.0
    patch: int = 8
    separation: float = 10.0


class LSPProtection(Baseline[LSPConfig]):
    """Adds coloured patches, which differ within a class and are separable between classes."""

    Config = LSPConfig

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        channels, rows, columns = self._grid
        values = torch.empty(len(images), channels * rows * columns)
        for place, (label, number) in enumerate(zip(labels.tolist(), numbers, strict=True)):
            z = torch.randn(values.shape[1], generator=generator_for(self.seed, "lsp", "image", number))
            values[place] = self._spreads[label] @ z + self.config.separation * self._corners[label]
        patches = values.view(-1, channels, rows, columns)
        patch, (height, width) = self.config.patch, self.clean.image_size
        delta = patches.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[:, :, :height, :width]
        return add_within_rms(images, delta, self.config.rms_255)

    @cached_property
    def _grid(self) -> tuple[int, int, int]:
        """Channels, and patches down and across."""
        rows, columns = (-(-side // self.config.patch) for side in self.clean.image_size)
        values = self.clean.channels * rows * columns
        if values > MOST_VALUES:
            raise ConfigError(f"{values} patch values an image, at most {MOST_VALUES}; raise patch")
        if 2**values < self.clean.classes:
            raise ConfigError(f"{values} patch values an image cannot tell {self.clean.classes} classes; lower patch")
        return self.clean.channels, rows, columns

    @cached_property
    def _corners(self) -> Tensor:
        """c_k, float32 [K, d] of -1 and 1, no two alike."""
        channels, rows, columns = self._grid
        generator = generator_for(self.seed, "lsp", "corners")
        found: dict[tuple[int, ...], None] = {}
        while len(found) < self.clean.classes:
            corner = torch.randint(2, (channels * rows * columns,), generator=generator)
            found[tuple((2 * corner - 1).tolist())] = None
        return torch.tensor(list(found), dtype=torch.float32)

    @cached_property
    def _spreads(self) -> list[Tensor]:
        """A_k, float32 [d, d], one a class."""
        side = self._corners.shape[1]
        draws = (generator_for(self.seed, "lsp", "spread", label) for label in range(self.clean.classes))
        return [2 * torch.rand(side, side, generator=generator) - 1 for generator in draws]
