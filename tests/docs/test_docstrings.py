"""The examples in the docstrings of the public names run one after the other, as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import uge
from uge.cli.train import train

ORDER = [name for name in uge.__all__ if name != "__version__"]


def test_the_examples_of_the_public_names_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uge.service.detector.STEPS", 4)  # of thousands
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    names = {"uge": uge, "torch": torch}
    for name in ORDER:
        if name == "load_network":
            Path("words").write_text("correct horse")
            key = Path("copy.recipient.uge")
            train(Path("copy"), Path("run"), key, Path("words"), network="mlp:width=8", epochs=1)
        (found,) = finder.find(getattr(uge, name), name)
        assert found.examples, f"uge.{name} has no example"
        found.globs = names
        said: list[str] = []
        failed, _ = runner.run(found, out=said.append, clear_globs=False)
        assert not failed, "".join(said)
