"""What is refused before anything is trained, and at what size images are worked on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from uge import pipeline
from uge.copy import Copy
from uge.data import photographs
from uge.errors import ConfigError
from uge.keys import SealedKey
from uge.protect import sealed

from .images import in_turn, noise


def test_a_photograph_that_no_reader_of_the_copy_would_take_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("a/small", (40, 50)), ("b/large", (110, 120))):
        file = tmp_path / "data" / f"{name}.png"
        file.parent.mkdir(parents=True)
        Image.new("RGB", size, (9, 99, 199)).save(file)
    monkeypatch.setattr(pipeline, "MOST_PIXELS", 13_000)
    with (
        photographs(str(tmp_path / "data"), working_size=32) as originals,
        pytest.raises(ConfigError, match=r"b/large has 120x110 pixels, an image of a copy at most 13,000"),
    ):
        pipeline.protect_and_publish(originals, [SealedKey.draw()], tmp_path / "copy")
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


def test_many_small_images_are_worked_on_at_32_pixels_and_published_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "FEW_IMAGES", 6)
    clean, key = in_turn(noise(6, 3, 40, 64), "one", "other"), SealedKey.draw()
    assert sealed.SealedProtection.seen(clean).image_size == (20, 32)
    for others in (
        clean.subset(torch.arange(5)),
        in_turn(noise(6, 3, 32, 32), "one"),
        in_turn(noise(6, 3, 20, 64), "one"),
    ):
        assert sealed.SealedProtection.seen(others) is others
    small = sealed.SealedConfig(width=4, epochs=1, references=("mlp:width=4",), surrogates=("mlp:width=4",))
    pipeline.protect_and_publish(clean, [key], tmp_path / "copy", config=small)
    copy = Copy.read(tmp_path / "copy", key)
    assert copy.manifest is not None and copy.manifest.settings["seen_at"] == 32
    assert copy.images.image_size == (40, 64)
    assert torch.equal(copy.view(key).images, clean.images & 0xFE)
