"""Random noise, the control: Huang et al., "Unlearnable Examples", ICLR 2021, arXiv 2101.04898, section 4.

    x_u = clip(x + delta),   delta uniform on {-epsilon, ..., epsilon}

drawn anew for every image (sample-wise), or once for every class (class-wise). Noise of each image is no shortcut, and
a network learns in spite of it; noise of each class is one. Deviation: whole 8-bit steps in place of real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uge.baselines.baseline import Baseline, LinfConfig, add_within_linf
from uge.runtime import generator_for


@dataclass(frozen=True)
class RandomNoiseConfig(LinfConfig):
    """Settings of random noise.

    Attributes:
        scope: "sample" (a noise for each image) or "class" (one for each class).
    """

    scope: str = "sample"


class RandomNoiseProtection(Baseline[RandomNoiseConfig]):
    """Adds uniform noise."""

    Config = RandomNoiseConfig

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        owners = labels.tolist() if self.config.scope == "class" else numbers
        return add_within_linf(images, torch.stack([self._noise(owner) for owner in owners]), self.config.epsilon_255)

    def _noise(self, owner: int) -> Tensor:
        """The noise of one class or image, float32 [C, H, W] in whole steps."""
        generator = generator_for(self.seed, "random noise", self.config.scope, owner)
        epsilon = self.config.epsilon_255
        return torch.randint(-epsilon, epsilon + 1, self.clean.images.shape[1:], generator=generator).float()
