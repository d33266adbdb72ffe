"""Images that many tests make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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


def save_splits(file: Path, **splits: ImageSet) -> str:
    """Write splits of one data set into a .npz file, which is named as DATA."""
    arrays = {"class_names": np.array(next(iter(splits.values())).class_names)}
    for split, part in splits.items():
        arrays |= {f"x_{split}": part.images.permute(0, 2, 3, 1).numpy(), f"y_{split}": part.labels.numpy()}
    np.savez(file, **arrays)
    return str(file)
