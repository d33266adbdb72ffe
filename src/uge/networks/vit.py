"""A small vision transformer: Dosovitskiy et al., ICLR 2021, with mean pooling and pre-normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.errors import ConfigError


class Block(nn.Module):
    """Self-attention and a two-layer perceptron, each behind LayerNorm and a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        # [N, T, 3*D] -> 3 x [N, heads, T, D/heads]
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.project(attended)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches as tokens.

    Args:
        patch: side of a patch in pixels, which divides both sides of the image; 0 takes the largest that does, and cuts
            the shorter one into about eight.
        width: values a token.
        depth: blocks.
        heads: attention heads; must divide `width`.
    """

    def __init__(
        self,
        channels: int,
        image_size: tuple[int, int],
        classes: int,
        patch: int = 0,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if not patch:
            wanted = math.ceil(min(image_size) / 8)
            patch = max(side for side in range(1, wanted + 1) if math.gcd(*image_size) % side == 0)
        if image_size[0] % patch or image_size[1] % patch:
            raise ConfigError(f"vit: image size {image_size[0]}x{image_size[1]} is no multiple of patch {patch}")
        if width % heads:
            raise ConfigError(f"vit: width {width} is no multiple of heads {heads}")
        tokens = (image_size[0] // patch) * (image_size[1] // patch)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position  # [N, D, h, w] -> [N, T, D]
        return self.classify(self.norm(self.blocks(tokens)).mean(dim=1))
