"""A classifier that begins with an encoder which others have trained on other images."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet
from uge.encoders import build_encoder
from uge.encoders.efficientnet_lite import EfficientNetLite
from uge.runtime import quick


class Pretrained(nn.Module):
    """An encoder and a linear layer, which begins at zero.

    The encoder stays in eval mode even while it is trained: its normalisation keeps the statistics of far more images
    than there are here, and nothing in it is random.
    """

    def __init__(self, encoder: nn.Module, features: int, classes: int, precision: str) -> None:
        super().__init__()
        self.encoder, self.precision = encoder, precision
        self.classify = nn.Linear(features, classes, device="meta").to_empty(device="cpu")  # draws nothing
        for tensor in self.classify.parameters():
            nn.init.zeros_(tensor)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        with quick(x.device, self.precision):
            features = self.encoder(x)
        return self.classify(features.float())


def pretrained_classifier(encoder: str, images: ImageSet, side: int, precision: str) -> Pretrained:
    """An encoder, frozen, under a new linear layer for these images; efficientnets enlarge them to `side` pixels.

    Raises:
        ConfigError: as `build_encoder`.
    """
    built = build_encoder(encoder, images, seed=0)
    if isinstance(built, EfficientNetLite):
        built.side = side
    with torch.no_grad():
        features = built(torch.zeros(1, images.channels, *images.image_size)).shape[1]
    return Pretrained(built, features, images.classes, precision)
