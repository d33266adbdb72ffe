"""ConvNet: the small network of the gradient-matching literature, with smooth parts.

Three or four blocks of convolution, GroupNorm, SiLU and average pooling, as in Zhao et al., Dataset Condensation,
ICLR 2021, with GroupNorm for InstanceNorm and SiLU for ReLU, so that gradients of gradients are smooth and no
statistic runs across the batch.
"""

from __future__ import annotations

from torch import Tensor, nn

from uge.errors import ConfigError


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution, GroupNorm, SiLU and 2x2 average pooling, then one linear layer.

    Args:
        width: filters of the first block.
        depth: blocks; each halves the image while both sides stay >= 4.
        stem: 0, or the side of a patch: the image is first cut into stem x stem patches, each mapped linearly
            to `stem_width` values (a strided convolution, as a ViT begins).
        stem_width: values a patch; 0 takes two thirds of the patch's own stem * stem * channels, so that a third
            of every patch's directions is lost in the stem.
        frozen_stem: leave the stem at its initial weights during training, which makes the initial weights a
            lasting part of what the network is.
    """

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, int],
        classes: int,
        width: int = 64,
        depth: int = 3,
        stem: int = 0,
        stem_width: int = 0,
        frozen_stem: bool = False,
    ) -> None:
        super().__init__()
        if frozen_stem and not stem:
            raise ConfigError("convnet: frozen_stem needs a stem, as in convnet:stem=2,frozen_stem=true")
        layers: list[nn.Module] = []
        filters = channels
        side = min(image_size)
        if stem:
            if side < 2 * stem:
                raise ConfigError(f"convnet: a stem of {stem} needs images of at least {2 * stem} pixels a side")
            filters = stem_width or max(1, channels * stem * stem * 2 // 3)
            patches = nn.Conv2d(channels, filters, stem, stride=stem)
            patches.requires_grad_(not frozen_stem)
            layers.append(patches)
            side //= stem
        for block in range(depth):
            inputs, filters = filters, width * min(2**block, 2)
            norm = nn.GroupNorm(8 if width % 8 == 0 else 1, filters)
            layers += [nn.Conv2d(inputs, filters, 3, padding=1, bias=False), norm, nn.SiLU()]
            if side >= 8:
                layers.append(nn.AvgPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(2 if side >= 4 else 1)
        self.classify = nn.Linear(filters * (4 if side >= 4 else 1), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.pool(self.features(x)).flatten(1))
