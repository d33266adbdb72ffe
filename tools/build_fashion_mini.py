"""Build the embedded `fashion-mini`: the first 600 training and 100 test images of each Fashion-MNIST class.

Run once, by hand, where Debian's package `dataset-fashion-mnist` (or any folder with the four original files) is:

    python tools/build_fashion_mini.py [--source /usr/share/datasets/fashion-mnist]

The same originals and the same Pillow give the same bytes. Each split becomes one grayscale PNG: a grid of 28x28 tiles
read row by row, first all images of class 0, then all of class 1, and so on, in the order of the original files. The
labels follow from the place, so no second file can disagree with the first. A PNG is a tenth smaller than a compressed
.npz of the same images and opens in any viewer.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
from PIL import Image

TARGET = Path(__file__).resolve().parents[1] / "src/uge/data/embedded"
SIDE, CLASSES = 28, 10
SPLITS = {"train": ("train", 600, 60), "test": ("t10k", 100, 40)}  # file prefix, images a class, tiles a grid row


def read_idx(path: Path, header_bytes: int) -> np.ndarray:
    """The bytes of an IDX file after its header, uint8 [bytes]."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header_bytes)


def grid_of(source: Path, split: str) -> np.ndarray:
    """One split's tiles as one image, uint8 [rows * 28, columns * 28]."""
    prefix, per_class, columns = SPLITS[split]
    images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, SIDE, SIDE)
    labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz", 8)
    tiles = np.concatenate([images[labels == label][:per_class] for label in range(CLASSES)])  # [N, 28, 28]
    return tiles.reshape(-1, columns, SIDE, SIDE).transpose(0, 2, 1, 3).reshape(-1, columns * SIDE)


def build(source: Path, split: str) -> Path:
    """Write one split's grid and return its path."""
    path = TARGET / f"fashion-mini-{split}.png"
    Image.fromarray(grid_of(source, split)).save(path, optimize=True)
    return path


def main() -> None:
    """Build both splits."""
    parser = argparse.ArgumentParser(description="build the embedded fashion-mini images")
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    source = parser.parse_args().source
    for split in SPLITS:
        path = build(source, split)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
