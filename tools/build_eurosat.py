"""Build the embedded `eurosat`: the first 300 training and 100 test images of each class of eurosat-7k.zip.

Run once, by hand:

    python tools/build_eurosat.py eurosat-7k.zip

The zip is an ImageFolder (train/CLASS/0000.png and test/CLASS/0000.png, 8-bit RGB, 32x32). It was made from EuroSAT
(Helber et al. 2019, DOI 10.5281/zenodo.7711810): the JPEGs of quality 100 and 64x64 pixels, box-filtered to 32x32.

The same zip and the same Pillow give the same bytes. Each split becomes one lossless WebP: a grid of tiles read row by
row, first all images of the first class, then all of the second, in the order of their names. The labels follow from
the place, so no second file can disagree with the first. Lossless WebP takes about half of the single PNGs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

TARGET = Path(__file__).resolve().parents[1] / "src/uge/data/embedded"
ZIP_SHA256 = "a9a7bbf37339251a82c2fb5e34b751fd5428d6cee66fb93be7be4fb1843f1a32"
SIDE = 32
SPLITS = {"train": (300, 60), "test": (100, 40)}  # images a class, tiles a grid row


def read_tile(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One image, uint8 [32, 32, 3]."""
    image = Image.open(io.BytesIO(archive.read(name)))
    if image.mode != "RGB" or image.size != (SIDE, SIDE):
        raise SystemExit(f"{name} is {image.mode} {image.size}; expected RGB ({SIDE}, {SIDE})")
    return np.asarray(image)


def grid_of(source: Path, split: str) -> np.ndarray:
    """One split's tiles as one image, uint8 [rows * 32, columns * 32, 3]."""
    per_class, columns = SPLITS[split]
    with zipfile.ZipFile(source) as archive:
        members = sorted(name for name in archive.namelist() if name.startswith(f"{split}/") and name.endswith(".png"))
        classes = sorted({name.split("/")[1] for name in members})
        chosen = [f"{split}/{each}/{number:04d}.png" for each in classes for number in range(per_class)]
        tiles = np.stack([read_tile(archive, name) for name in chosen])  # [N, 32, 32, 3]
    return tiles.reshape(-1, columns, SIDE, SIDE, 3).swapaxes(1, 2).reshape(-1, columns * SIDE, 3)


def build(source: Path, split: str) -> Path:
    """Write one split's grid, check that it reads back as it was, and return its path."""
    path, grid = TARGET / f"eurosat-{split}.webp", grid_of(source, split)
    Image.fromarray(grid).save(path, lossless=True, method=6, quality=100)
    with Image.open(path) as written:
        assert np.array_equal(np.asarray(written), grid), "lossless WebP must give every pixel back"
    return path


def main() -> None:
    """Build both splits."""
    parser = argparse.ArgumentParser(description="build the embedded eurosat images")
    parser.add_argument("source", type=Path, help="eurosat-7k.zip")
    source = parser.parse_args().source
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != ZIP_SHA256:
        raise SystemExit(f"{source} has the SHA-256 {found}; expected {ZIP_SHA256}")
    for split in SPLITS:
        path = build(source, split)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
