"""The embedded images: what they are, how fast they load, and that they are what the build script makes."""

from __future__ import annotations

import importlib.util
import statistics
import time
from importlib import resources
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from uge.data import EMBEDDED, load

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "build_fashion_mini.py"
ORIGINALS = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    if not SCRIPT.exists():
        pytest.skip("needs the build script of a source checkout")
    spec = importlib.util.spec_from_file_location("build_fashion_mini", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("split", "per_class"), [("train", 600), ("test", 100)])
def test_balanced_gray_images(split: str, per_class: int) -> None:
    found = load("fashion-mini", split)
    assert found.images.shape == (10 * per_class, 1, 28, 28)
    assert found.labels.bincount().tolist() == [per_class] * 10
    assert found.class_names == EMBEDDED["fashion-mini"]
    assert found.names[per_class] == "trouser/00000"
    assert len(set(found.names)) == len(found)
    assert load("fashion-mini", split).digest() == found.digest()


def test_the_splits_share_no_image() -> None:
    train, test = (
        {image.numpy().tobytes() for image in load("fashion-mini", split).images} for split in ("train", "test")
    )
    assert not train & test


def test_it_can_be_resized() -> None:
    assert load("fashion-mini", "test", image_size=(16, 16)).image_size == (16, 16)


def test_small_and_fast() -> None:
    files = [file for file in resources.files("uge.data").joinpath("embedded").iterdir() if file.is_file()]
    assert sum(len(file.read_bytes()) for file in files) < 3_000_000

    def seconds() -> float:
        start = time.process_time()  # not the clock on the wall, which other tests slow down
        load("fashion-mini")
        return time.process_time() - start

    assert statistics.median(seconds() for _ in range(5)) < 0.3


def test_the_licence_travels_with_it() -> None:
    text = resources.files("uge.data").joinpath("embedded", "LICENSE-fashion-mnist").read_text()
    for part in ("Copyright (c) 2017 Zalando SE", "Permission is hereby granted", "WITHOUT WARRANTY OF ANY KIND"):
        assert part in text


@pytest.mark.parametrize("split", ["train", "test"])
def test_it_is_what_the_script_builds(script: ModuleType, split: str) -> None:
    """Pixels, not bytes: these depend on the zlib below Pillow."""
    if not ORIGINALS.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    file = resources.files("uge.data").joinpath("embedded", f"fashion-mini-{split}.png")
    with file.open("rb") as stream, Image.open(stream) as committed:
        assert np.array_equal(np.asarray(committed), script.grid_of(ORIGINALS, split))


def test_building_twice_gives_the_same_bytes(script: ModuleType, tmp_path: Path, monkeypatch) -> None:
    if not ORIGINALS.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    monkeypatch.setattr(script, "TARGET", tmp_path)
    first = script.build(ORIGINALS, "test").read_bytes()
    assert script.build(ORIGINALS, "test").read_bytes() == first


def test_labels_are_those_of_the_originals(script: ModuleType) -> None:
    if not ORIGINALS.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    images = script.read_idx(ORIGINALS / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = script.read_idx(ORIGINALS / "t10k-labels-idx1-ubyte.gz", 8)
    label_of = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    found = load("fashion-mini", "test")
    assert [label_of[image.numpy().tobytes()] for image in found.images] == found.labels.tolist()
    assert torch.equal(found.labels, found.labels.sort().values)
