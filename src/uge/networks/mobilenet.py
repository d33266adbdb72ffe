"""MobileNetV2 with a CIFAR stem: Sandler et al., CVPR 2018."""

from __future__ import annotations

from torch import Tensor, nn

# expansion, filters, repeats, stride: table 2 of the paper, with the strides of the first stages at 1 for small images
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv(inputs: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(filters)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel on its own, project; a shortcut where the shapes agree."""

    def __init__(self, inputs: int, filters: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [*_conv(inputs, hidden, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [*_conv(hidden, hidden, 3, stride, hidden), nn.ReLU6(), *_conv(hidden, filters, 1)]
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == filters

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Inverted residual blocks.

    It is fully convolutional, so images may have any size.

    Args:
        width_percent: filters as a percentage of the paper's (100 is the original).
        repeats_percent: blocks a stage as a percentage of the paper's, at least one.
    """

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, int],
        classes: int,
        width_percent: int = 100,
        repeats_percent: int = 100,
    ) -> None:
        super().__init__()

        def scaled(filters: int) -> int:
            return max(8, round(filters * width_percent / 100 / 8) * 8)

        inputs = scaled(32)
        layers: list[nn.Module] = [*_conv(channels, inputs, 3), nn.ReLU6()]
        for expansion, filters, repeats, stride in STAGES:
            for block in range(max(1, round(repeats * repeats_percent / 100))):
                layers.append(InvertedResidual(inputs, scaled(filters), expansion, stride if block == 0 else 1))
                inputs = scaled(filters)
        last = scaled(1280)
        self.features = nn.Sequential(*layers, *_conv(inputs, last, 1), nn.ReLU6())
        self.classify = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x).mean(dim=(2, 3)))
