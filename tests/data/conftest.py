"""A small data set with known pixels, in every format that can be read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from uge.data import load
from uge.errors import DataError

from ..refusals import refused

CLASSES = ("cat", "dog", "train")  # a class may be called train (CIFAR-100 has one)
SPLITS = {"train": 4, "test": 2}  # images a class


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W] or [H, W, C] -> the bytes of a PNG."""
    return saved(Image.fromarray(pixels))


def write_images(root: Path, **pixels: np.ndarray) -> Path:
    """cat_0=array -> root/cat/0.png."""
    for name, image in pixels.items():
        file = root / (name.replace("_", "/") + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return root


def table(file: Path, images: list[object], labels: object, **options: object) -> Path:
    """A parquet file with the columns image and label."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, "label": labels}), file, **options)
    return file


def zipped(folder: Path, target: Path, prefix: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # an order that is not the sorted one
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return target


def refuses(source: Path | str, *fragments: str, split: str = "train", **options: object) -> None:
    """`load` refuses a source in one line, with all of these fragments."""
    with refused(DataError, "", *fragments):
        load(source, split, **options)


@pytest.fixture
def truth() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split -> (pixels uint8 [N, 6, 5, 3], labels [N]), class after class as paths sort."""
    random = np.random.default_rng(0)
    return {
        split: (
            random.integers(0, 256, (count * len(CLASSES), 6, 5, 3), dtype=np.uint8),
            np.repeat(np.arange(len(CLASSES)), count),
        )
        for split, count in SPLITS.items()
    }


@pytest.fixture
def image_folder(tmp_path: Path, truth: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """`truth` as train/CLASS/00000.png and test/CLASS/00000.png."""
    root = tmp_path / "images [1]"  # a name that a careless glob would misread
    for split, (pixels, labels) in truth.items():
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            write_images(root / split / CLASSES[label], **{f"{number % SPLITS[split]:05d}": image})
    return root
