"""Small sets and published folders for the tests of this room."""

from pathlib import Path

import torch

from uge.data.images import ImageSet
from uge.publish import Manifest, publish

EPSILON = 8


def make_set(count: int = 12, channels: int = 3, size: tuple[int, int] = (8, 8), seed: int = 0) -> ImageSet:
    """Random images of three classes, not in the order of their folders."""
    pixels = torch.randint(
        0, 256, (count, channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    labels = torch.arange(count) % 3
    classes = ("zebra", "cat", "T-shirt/top")
    return ImageSet(pixels, labels, classes, tuple(f"{classes[i % 3]}/{i:05d}" for i in range(count)))


def perturbed(images: torch.Tensor, epsilon: int = EPSILON, seed: int = 1) -> torch.Tensor:
    """Every pixel moved by `epsilon`, inwards where it would leave 0..255."""
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    moved = images.short() + signs * epsilon
    moved = torch.where((moved < 0) | (moved > 255), images.short() - signs * epsilon, moved)
    return moved.to(torch.uint8)


def published(out: Path, clean: ImageSet | None = None, **options: object) -> Manifest:
    clean = clean or make_set()
    arguments = {"method": "uge", "settings": {"preset": "quick"}, "epsilon_255": EPSILON} | options
    return publish(clean, perturbed(clean.images), out, **arguments)
