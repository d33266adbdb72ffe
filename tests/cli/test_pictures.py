"""One picture, or some without classes: protected for what they show, published and opened as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uge.data.decoding import picture_of
from uge.data.images import ImageSet

from .conftest import Run, assert_all_open, pixels

SIZES = ((150, 90), (60, 61), (130, 200))  # (width, height)
QUICK = ("--no-passphrase", "--set", "steps=3")


@pytest.fixture(scope="module")
def loose(eurosat: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of three sizes in no class folder, one of them gray."""
    folder = tmp_path_factory.mktemp("loose")
    for number, size in enumerate(SIZES):
        picture = picture_of(eurosat.images[number])
        gray = picture.convert("L").convert("RGB") if number == 1 else picture
        gray.resize(size, Image.Resampling.BICUBIC).save(folder / f"picture {number}.{'jpg' if number == 2 else 'png'}")
    (folder / "notes.csv").write_text("taken in May")
    return folder


def test_pictures_without_classes_are_protected_and_opened_exactly(run: Run, loose: Path, tmp_path: Path) -> None:
    done = run("protect", loose, *QUICK, "--out", tmp_path / "copy").ok()
    assert len(done.stdout.splitlines()) == 4
    assert "3 pictures, method pictures" in done.stdout
    assert "pictures without classes, 3 in all" in done.stderr
    assert "1 other file passed over" in done.stderr and "a table of labels is metadata.csv" in done.stderr
    assert f"uge open {tmp_path / 'copy'}" in done.stdout
    assert_all_open(run, tmp_path / "copy", loose, 3)
    run("open", tmp_path / "copy", "--key", tmp_path / "copy.recipient.uge", "--out", tmp_path / "mine").ok()
    for number, (width, height) in enumerate(SIZES):
        own = pixels(next(loose.glob(f"picture {number}.*")))
        copy = pixels(tmp_path / "copy" / "train" / "picture" / f"picture {number}.png")
        opened = pixels(tmp_path / "mine" / "train" / "picture" / f"picture {number}.png")
        assert copy.shape[:2] == (height, width)
        assert (opened.reshape(own.shape) == own & 0xFE).all()
        assert 1 < np.abs(copy.astype(int).reshape(own.shape) - own).max() <= 16
        assert (copy[..., :1] == copy).all() == (number == 1)  # gray stays gray


def test_a_picture_that_is_gray_but_for_one_value_has_colour(run: Run, tmp_path: Path) -> None:
    gray = np.repeat(np.random.default_rng(0).integers(0, 256, (300, 400, 1), dtype=np.uint8), 3, axis=2)
    gray[7, 9, 0] ^= 1  # nothing of it is left at the size that networks see
    Image.fromarray(gray).save(tmp_path / "scan.png")
    assert "1 picture, " in run("protect", tmp_path / "scan.png", *QUICK, "--out", tmp_path / "copy").ok().stdout
    assert_all_open(run, tmp_path / "copy", tmp_path / "scan.png", 1)


def test_pictures_of_one_class_keep_its_name(run: Run, loose: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cats" / "tabby"
    folder.mkdir(parents=True)
    for file in loose.glob("*.png"):
        (folder / file.name).write_bytes(file.read_bytes())
    run("protect", tmp_path / "cats", *QUICK, "--out", tmp_path / "copy").ok()
    assert sorted(file.stem for file in (tmp_path / "copy" / "train" / "tabby").iterdir()) == ["picture 0", "picture 1"]


@pytest.mark.parametrize("name", ["sealed", "random-noise"])
def test_methods_for_classes_say_what_they_need(run: Run, loose: Path, tmp_path: Path, name: str) -> None:
    done = run("protect", loose, "--no-passphrase", "--method", name, "--out", tmp_path / "copy")
    assert done.code == 2 and "class" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob("*.uge"))


def test_a_picture_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    done = run("protect", tmp_path / "photo.jpg", *QUICK, "--out", tmp_path / "copy")
    assert f"{tmp_path / 'photo.jpg'}: cannot be read" in done.error


def test_who_trains_networks_is_told_that_there_are_no_classes(run: Run, loose: Path, tmp_path: Path) -> None:
    run("protect", loose, *QUICK, "--out", tmp_path / "copy").ok()
    done = run("audit", tmp_path / "copy", "--test", "eurosat", "--out", tmp_path / "audit")
    assert "the copy alone has 'picture'" in done.error
