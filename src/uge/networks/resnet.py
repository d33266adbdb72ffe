"""ResNet with a CIFAR stem: He et al., Deep Residual Learning for Image Recognition, CVPR 2016.

ResNet-18 is `depth=18` with `width=64`, its stem a 3x3 convolution of stride 1 without pooling, as the poisoning
literature uses it on CIFAR.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from uge.errors import ConfigError

BLOCKS: dict[int, tuple[int, ...]] = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # four stages
BLOCKS |= {8: (1, 1, 1), 14: (2, 2, 2), 20: (3, 3, 3), 32: (5, 5, 5)}  # three stages: section 4.2 of the paper


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != filters:
            # The same as a 1x1 convolution with a stride, whose backward pass in oneDNN 3.12 (torch 2.13, AVX-512)
            # writes outside its memory for fewer than 16 input channels and 64-pixel images.
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(1, stride), nn.Conv2d(inputs, filters, 1, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Basic-block ResNet.

    It is fully convolutional, so images may have any size.

    Args:
        depth: 8, 14, 20, 32 (three stages) or 10, 18, 34 (four stages).
        width: filters of the first stage; each stage doubles them.
    """

    def __init__(
        self, channels: int, image_size: tuple[int, int], classes: int, depth: int = 18, width: int = 64
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ConfigError(f"resnet has no depth {depth}; choose from {sorted(BLOCKS)}")
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks: list[nn.Module] = []
        filters = width
        for stage, count in enumerate(BLOCKS[depth]):
            for block in range(count):
                inputs, filters = filters, width * 2**stage
                blocks.append(BasicBlock(inputs, filters, stride=2 if stage and not block else 1))
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.blocks(self.stem(x)).mean(dim=(2, 3)))
