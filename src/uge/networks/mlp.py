"""MLP: pixels in, two hidden layers."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Flattened pixels, hidden layers with LayerNorm and ReLU.

    There are `depth` of them, of `width` units each.
    """

    def __init__(
        self, channels: int, image_size: tuple[int, int], classes: int, width: int = 512, depth: int = 2
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = channels * image_size[0] * image_size[1]
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
