"""VGG with BatchNorm: Simonyan & Zisserman, ICLR 2015, cut to the depth that small images allow."""

from __future__ import annotations

from torch import Tensor, nn

from uge.errors import ConfigError

STAGES = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


class VGG(nn.Module):
    """3x3 convolutions with BatchNorm and ReLU, max pooling between stages while the image allows it.

    Args:
        depth: 8, 11 or 16.
        width: filters of the first stage, doubled up to eight times as many (64 is the original).
    """

    def __init__(
        self, channels: int, image_size: tuple[int, int], classes: int, depth: int = 11, width: int = 64
    ) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ConfigError(f"vgg has no depth {depth}; choose from {sorted(STAGES)}")
        layers: list[nn.Module] = []
        filters, side = channels, min(image_size)
        for stage, count in enumerate(STAGES[depth]):
            for _ in range(count):
                inputs, filters = filters, width * min(2**stage, 8)
                layers += [nn.Conv2d(inputs, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
            if side >= 2:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x).mean(dim=(2, 3)))
