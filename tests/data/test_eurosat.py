"""The embedded images: what they are, how small and fast, and that they are what the build script makes."""

from __future__ import annotations

import runpy
import statistics
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uge.data import EMBEDDED, load

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "build_eurosat.py"
SOURCE = ROOT.parent / "shared" / "data" / "eurosat-7k.zip"
DIGESTS = {
    "train": "d91e95c890def694fda9007f8def23a84c6f9b8bf119733c0019ae3f265b92fc",
    "test": "8d8edfcb65aedb904fd5a129393ddf2213b30dd3c74a83002ebafaf59e37e432",
}


@pytest.mark.parametrize(("split", "per_class"), [("train", 300), ("test", 100)])
def test_balanced_colour_images_whose_digest_is_fixed(split: str, per_class: int) -> None:
    found = load("eurosat", split)
    assert found.images.shape == (10 * per_class, 3, 32, 32)
    assert found.labels.tolist() == sorted([*range(10)] * per_class)
    assert found.class_names == EMBEDDED["eurosat"]
    assert found.names[per_class] == "Forest/0000" and len(set(found.names)) == len(found)
    assert found.digest() == DIGESTS[split]


def test_small_and_fast() -> None:
    files = [file for file in resources.files("uge.data").joinpath("embedded").iterdir() if file.is_file()]
    assert sum(len(file.read_bytes()) for file in files) < 6_000_000

    def seconds() -> float:
        start = time.process_time()  # not the clock on the wall, which other tests slow down
        load("eurosat")
        return time.process_time() - start

    assert statistics.median(seconds() for _ in range(5)) < 0.5


def test_the_licence_and_the_sources_travel_with_it() -> None:
    text = resources.files("uge.data").joinpath("embedded", "LICENSE-eurosat").read_text()
    for part in (
        "Copyright (c) 2023 Patrick Helber",
        "Permission is hereby granted",
        "WITHOUT WARRANTY OF ANY KIND",
        "10.5281/zenodo.7711810",
        "modified Copernicus Sentinel data",
    ):
        assert part in text


@pytest.mark.skipif(
    not SCRIPT.exists() or not SOURCE.exists(),
    reason="needs the build script of a source checkout and the zip that it reads",
)
@pytest.mark.parametrize("split", DIGESTS)
def test_it_is_what_the_script_builds(split: str) -> None:
    """Pixels, not bytes: these depend on the WebP library below Pillow."""
    grid = runpy.run_path(str(SCRIPT))["grid_of"](SOURCE, split)
    file = resources.files("uge.data").joinpath("embedded", f"eurosat-{split}.webp")
    with file.open("rb") as stream, Image.open(stream) as committed:
        assert np.array_equal(np.asarray(committed), grid)
