"""Copies as another program would write them, for an audit that knows nothing of their making.

    python examples/foreign_folder.py --method class-noise --out noisy
    python examples/foreign_folder.py --method patches --out patched
    uge audit noisy --test eurosat --clean eurosat --budget 10m --out noisy-audit

Only the images come from this package: what is done to them and how they are written is numpy and Pillow alone. Two
classics, both without a key: one uniform noise pattern a class (the class-wise control of Huang et al., Unlearnable
Examples, ICLR 2021), and coarse random patches a class (after Yu et al., Availability Attacks Create Shortcuts, KDD
2022; there the points of a linear data set, here uniform draws). Plain training falls for both; projecting out what a
linear classifier reads undoes them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import uge
from uge.data.images import ImageSet

SEED = 7
PATCH = 4  # pixels


def patterns(method: str, classes: int, shape: tuple[int, int, int], epsilon: int) -> np.ndarray:
    """One pattern a class, int [K, C, H, W] within +-epsilon."""
    draw = np.random.default_rng(SEED)
    channels, height, width = shape
    if method == "class-noise":
        return draw.integers(-epsilon, epsilon + 1, (classes, *shape))
    coarse = draw.choice((-epsilon, epsilon), (classes, channels, -(-height // PATCH), -(-width // PATCH)))
    return coarse.repeat(PATCH, axis=2).repeat(PATCH, axis=3)[:, :, :height, :width]


def write(images: ImageSet, method: str, epsilon: int, out: Path) -> None:
    """An ImageFolder out/CLASS/NAME.png, under the names that the originals have."""
    pixels, labels = images.images.numpy().astype(int), images.labels.numpy()
    moved = np.clip(pixels + patterns(method, images.classes, pixels.shape[1:], epsilon)[labels], 0, 255).astype(
        "uint8"
    )
    for name, image, label in zip(images.names, moved, labels, strict=True):
        folder = out / images.class_names[label].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / f"{Path(name).name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=("class-noise", "patches"), required=True)
    parser.add_argument("--data", default="eurosat")
    parser.add_argument("--image-size", type=int, help="side in pixels; as they are by default")
    parser.add_argument("--epsilon", type=int, default=16, help="in 8-bit steps")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    size = (arguments.image_size,) * 2 if arguments.image_size else None
    write(uge.load(arguments.data, "train", image_size=size), arguments.method, arguments.epsilon, arguments.out)
    print(f"{arguments.out}: written; nothing in it says how")


if __name__ == "__main__":
    main()
