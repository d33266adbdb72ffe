"""What is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from uge import pipeline
from uge.data import photographs
from uge.errors import ConfigError
from uge.keys import SealedKey


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
