"""Photographs of any sizes: published at their own, opened exactly, seen by networks at one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from uge import authorised_view, load_published
from uge.copy import Copy
from uge.data.decoding import picture_of
from uge.data.images import ImageSet
from uge.keys import load_key

from .conftest import Options, Result, Run, protect_arguments, role

SIZES = ((96, 64), (70, 130), (40, 41), (16, 900), (200, 180))  # (width, height)
PLAN = """
epochs = 1
budget_check = false
strongest = 0
more_seeds = []
[[hackers]]
networks = ["authorised", "mlp:width=8"]
[[hackers]]
networks = ["mlp:width=8"]
countermeasures = ["grayscale", "stolen-key"]
"""


@pytest.fixture(scope="module")
def album(eurosat: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three classes and five sizes, some as JPEG, every third one lying on its side."""
    folder = tmp_path_factory.mktemp("album")
    for name, label in (("forest", "Forest"), ("river", "River"), ("sea", "SeaLake")):
        members = (eurosat.labels == eurosat.class_names.index(label)).nonzero().flatten()[:12]
        for number, image in enumerate(eurosat.images[members]):
            picture = picture_of(image).resize(SIZES[number % len(SIZES)], Image.Resampling.BICUBIC)
            split, kind = "train" if number < 8 else "test", "jpg" if number % 2 else "png"
            path = folder / split / name / f"{number:03d}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            exif = picture.getexif()
            exif[0x0112] = 6 if number % 3 == 0 else 1
            picture.save(path, exif=exif)
    return folder


@pytest.fixture(scope="module")
def done(run: Run, album: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(*protect_arguments(album, key, tmp_path_factory.mktemp("photographs") / "copy")).ok()


@pytest.fixture(scope="module")
def copy(done: Result) -> Path:
    return Path(done.stdout.split()[1].rstrip(":"))


def upright(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture))


def originals(album: Path) -> dict[str, np.ndarray]:
    files = sorted((album / "train").rglob("*.*"))
    return {file.relative_to(album).with_suffix(".png").as_posix(): upright(file) for file in files}


def test_every_photograph_is_published_at_its_own_size_and_name(done: Result, copy: Path, album: Path) -> None:
    assert "24 photographs of 7 sizes; protected as networks see them at 64x64 pixels" in done.stderr
    assert "9 of 24 images turned upright, as their EXIF says" in done.stderr
    expected = originals(album)
    published = {file.relative_to(copy).as_posix(): upright(file) for file in copy.rglob("*.png")}
    assert published.keys() == expected.keys()
    for name, pixels in published.items():
        assert pixels.shape == expected[name].shape
        change = np.abs(pixels.astype(int) - expected[name])
        assert 0 < change.max() <= 16, name
    assert "Images: 24, RGB, 41x40 to 180x200 pixels." in (copy / "README.md").read_text()


def test_the_recipient_has_every_pixel_back(run: Run, copy: Path, album: Path, mine: Options, tmp_path: Path) -> None:
    done = run("verify", copy, *mine, "--clean", album).ok()
    assert "views: 24 of 24 identical" in done.stdout
    run("open", copy, *mine, "--out", tmp_path / "mine").ok()
    for name, pixels in originals(album).items():
        assert np.array_equal(upright(tmp_path / "mine" / name), pixels & 0xFE)


def test_networks_see_photographs_whole_at_one_size(copy: Path, album: Path, key: Path) -> None:
    """What they see of the copy and of the view is resized from the published size, never cut."""
    owner = load_key(role(key, "recipient"))
    everybody, mine = load_published(copy).images, authorised_view(Copy.read(copy, owner), owner).images
    assert everybody.images.shape == mine.images.shape == (24, 3, 64, 64)
    for number, name in enumerate(json.loads((copy / "manifest.json").read_text())["images"]):
        pixels = originals(album)[name["file"]] & 0xFE
        seen = Image.fromarray(pixels).resize((64, 64), Image.Resampling.LANCZOS)
        assert torch.equal(mine.images[number].permute(1, 2, 0), torch.from_numpy(np.array(seen)))
    assert not torch.equal(everybody.images, mine.images)


def test_training_and_audits_take_photographs(run: Run, copy: Path, album: Path, mine: Options, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    test = ("--test", album)
    done = run("train", copy, *mine, *test, "--network", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "run").ok()
    assert "accuracy" in done.stdout
    audit = ("audit", copy, *test, "--clean", album, *mine, "--plan", tmp_path / "plan.toml", "--out", tmp_path / "a")
    assert "letters are opened at the photographs' own sizes" in run(*audit, "--runner", "local:workers=1").ok().stdout
    text = (tmp_path / "a" / "report.md").read_text()
    assert "24 images of 64 x 64 pixels (as networks see them)" in text and "/255 by its manifest, 16/255" in text
    found = [json.loads(line) for line in (tmp_path / "a" / "records.jsonl").read_text().splitlines()]
    assert {(row["kind"], row["countermeasure"], row["trained_on"]) for row in found} >= {
        ("authorised", "none", "published"),
        ("authorised", "none", "clean"),
        ("hacker", "grayscale", "published"),
        ("hacker", "grayscale", "clean"),
    }


def test_a_photograph_without_room_for_a_letter_is_refused_before_any_work(run: Run, key: Path, tmp_path: Path) -> None:
    for name in ("forest", "river"):
        folder = tmp_path / "mixed" / "train" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (90, 60), "red").save(folder / "a.png")
    Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)).save(folder / "tiny.png")
    done = run(*protect_arguments(tmp_path / "mixed", key, tmp_path / "copy"))
    assert done.code == 2 and "error: river/tiny: images of 5x7 pixels" in done.stderr.splitlines()[-1], done
    assert not (tmp_path / "copy.partial").exists()
