"""Images that many tests make."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.data.images import ImageSet


def noise(*shape: int, seed: int = 0, least: int = 0, most: int = 255) -> Tensor:
    """Values uint8, each as often as any other."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(least, most + 1, shape, generator=generator, dtype=torch.uint8)


def in_turn(images: Tensor, *classes: str) -> ImageSet:
    """These images, of the classes in turn and named by their numbers."""
    count = len(images)
    return ImageSet(images, torch.arange(count) % len(classes), classes, tuple(f"{n:03d}" for n in range(count)))
