"""Class-wise convolutions (CUDA): Sadasivan et al., "CUDA: Convolution-based Unlearnable Datasets", CVPR 2023.

arXiv 2303.04278. Every class has a filter F_k, 1 in the middle and uniform on [0, p] around it, and every image is

    x_u = (x * F_k) / max(x * F_k)

with the same filter for all channels and zeros beyond the borders: a network learns to read the filter.
No device is meant by the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.baselines.baseline import Baseline, BaselineConfig
from uge.data.images import to_float, to_uint8
from uge.errors import ConfigError
from uge.runtime import generator_for


@dataclass(frozen=True)
class CUDAConfig(BaselineConfig):
    """Settings of class-wise convolutions.

    Attributes:
        filter_size: side of the filters in pixels, odd; the paper has 3 at 32x32 and 9 at 224x224.
        blur: p, the largest weight beside the middle; the paper has 0.3 at 32x32 and 0.06 at 224x224.
    """

    bound = "none"
    filter_size: int = 3
    blur: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filter_size < 3 or self.filter_size % 2 == 0:
            raise ConfigError(f"filter_size must be odd and at least 3, got {self.filter_size}")
        if not 0 < self.blur <= 1:
            raise ConfigError(f"blur is a weight above 0, up to 1, got {self.blur}")


class CUDAProtection(Baseline[CUDAConfig]):
    """Blurs the images of each class with its own filter."""

    Config = CUDAConfig

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        result = torch.empty_like(images)
        for label in labels.unique().tolist():
            members = labels == label
            x = to_float(images[members]).flatten(0, 1)[:, None]  # channels are filtered one by one
            blurred = F.conv2d(x, self._filters[label][None, None], padding="same").view(images[members].shape)
            result[members] = to_uint8(blurred / blurred.amax((1, 2, 3), keepdim=True).clamp_min(1e-6))
        return result

    @cached_property
    def _filters(self) -> list[Tensor]:
        """F_k, float32 [filter_size, filter_size], one a class."""
        side, filters = self.config.filter_size, []
        for label in range(self.clean.classes):
            generator = generator_for(self.seed, "cuda", label)
            weights = self.config.blur * torch.rand(side, side, generator=generator)
            weights[side // 2, side // 2] = 1.0
            filters.append(weights)
        return filters
