import shutil
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image

from uge.copy import files_of, open_copy, opening
from uge.copy.files import png_bytes, read_png
from uge.data import DataWarning, load
from uge.errors import KeyFileError, PublishError
from uge.keys import SealedKey
from uge.runners import Local

from .copies import content, make_set, published, published_sealed, weights_key


def expected() -> dict[str, torch.Tensor]:
    """By name, what every image opens to."""
    clean = make_set()
    return {name.rpartition("/")[2]: image & 0xFE for name, image in zip(clean.names, clean.images, strict=True)}


def opened(out: Path) -> dict[str, torch.Tensor]:
    return {name: read_png(data) for name, data in content(out).items()}


def test_a_copy_opens_to_a_class_folder_of_the_originals_but_for_the_lowest_bit(copy, recipient, tmp_path):
    assert open_copy(copy, recipient, tmp_path / "mine") == 12
    found = opened(tmp_path / "mine")
    assert set(found) == set(files_of(make_set()))
    assert all(torch.equal(image, expected()[Path(name).stem]) for name, image in found.items())
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o700
    assert len(load(tmp_path / "mine", "train")) == 12


def test_a_lost_worker_leaves_what_was_opened(copy, recipient, tmp_path, monkeypatch):
    """The same command goes on, as its message says."""

    class Dies(Local):
        def run(self, do, more, lost, folder):
            do(*more(1))
            yield
            yield lost(*more(1), OSError("killed"))

    monkeypatch.setattr(opening, "MOST_VALUES", 1)  # a chunk an image
    with pytest.raises(PublishError, match="the same command goes on"):
        open_copy(copy, recipient, tmp_path / "mine", runner=Dies())
    (first,) = [path for path in tmp_path.glob("mine.partial/**/*.png")]
    assert torch.equal(read_png(first.read_bytes()), expected()[first.stem])
    assert open_copy(copy, recipient, tmp_path / "mine") == 12 and not list(tmp_path.glob("*.partial"))


def test_a_broken_link_in_a_part_is_a_bad_file_and_no_more(copy, recipient, tmp_path):
    part = tmp_path / "part" / "cat"
    part.mkdir(parents=True)
    shutil.copy(copy / "train/cat/00001.png", part)
    (part / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(PublishError, match=r"gone\.png"):
        open_copy(tmp_path / "part", recipient, tmp_path / "mine")
    with pytest.warns(DataWarning, match=r"gone\.png"):
        assert open_copy(tmp_path / "part", recipient, tmp_path / "mine", skip_bad=True) == 1


def test_single_files_and_parts_open_without_a_manifest(copy, recipient, tmp_path):
    file = tmp_path / "holiday.png"
    shutil.copy(copy / "train/cat/00001.png", file)
    assert open_copy(file, recipient, tmp_path / "one") == 1
    assert torch.equal(opened(tmp_path / "one")["holiday.png"], expected()["00001"])

    part = tmp_path / "part"
    shutil.copytree(copy / "train/cat", part / "cats of mine")
    shutil.copy(copy / "train/zebra/00003.png", part / "loose.png")
    with pytest.warns(DataWarning, match="labels are those of the folders"):
        assert open_copy(part, recipient, tmp_path / "parts") == 5
    found = opened(tmp_path / "parts")
    assert torch.equal(found["train/cats of mine/00004.png"], expected()["00004"])
    assert torch.equal(found["loose.png"], expected()["00003"])

    assert open_copy(copy / "train", recipient, tmp_path / "train") == 12
    shutil.copytree(copy / "train", tmp_path / "bare" / "train")
    assert open_copy(tmp_path / "bare", recipient, tmp_path / "whole") == 12
    assert content(tmp_path / "whole") == content(tmp_path / "train")


def test_part_of_a_copy_with_its_manifest_opens_under_the_signed_names_and_says_what_is_missing(
    copy, recipient, tmp_path
):
    (copy / "train/cat/00001.png").rename(copy / "train/zebra/moved.png")
    (copy / "train/cat/00004.png").unlink()
    with pytest.warns(DataWarning, match=r"1 of 12 images of the manifest are not there \(train/cat/00004.png\)"):
        assert open_copy(copy, recipient, tmp_path / "mine") == 11
    found = opened(tmp_path / "mine")
    assert torch.equal(found["train/cat/00001.png"], expected()["00001"])
    assert "train/zebra/moved.png" not in found and "train/cat/00004.png" not in found


def refused(words: str, *arguments: object, out: Path, **options: object) -> None:
    with pytest.raises((PublishError, KeyFileError), match=words) as error:
        open_copy(*arguments, out, **options)
    assert "\n" not in str(error.value)
    assert not out.exists() and not list(out.parent.glob(".mine*"))


def test_what_does_not_open_is_one_line_and_writes_nothing(copy, recipient, tmp_path):
    out = tmp_path / "mine"
    file = copy / "train/cat/00001.png"
    data = file.read_bytes()
    single = tmp_path / "single.png"

    def wrong(content: bytes) -> None:
        for place, source, count in ((file, copy, 12), (single, single, 1)):
            place.write_bytes(content)
            refused(f"1 of {count} images do not open .*{place}", source, recipient, out=out)

    image = read_png(data)
    image[1, 2, 3] ^= 1
    wrong(png_bytes(image))
    wrong(png_bytes(make_set().images[1]))
    wrong(data[:200])
    wrong(b"no picture")
    with Image.open(copy / "train/cat/00004.png") as picture:
        picture.save(tmp_path / "lossy.jpg", quality=95)
    refused("lossy.jpg is a JPEG file, which has lost its letter", tmp_path / "lossy.jpg", recipient, out=out)
    single.write_bytes(data)
    refused("1 of 1 images do not open", single, SealedKey.draw(), out=out)
    refused("does not exist", tmp_path / "nowhere", recipient, out=out)
    (tmp_path / "empty").mkdir()
    refused("holds no PNG", tmp_path / "empty", recipient, out=out)


def test_the_rest_opens_where_bad_files_are_to_be_passed_over(copy, recipient, tmp_path):
    (copy / "train/cat/00001.png").write_bytes(png_bytes(make_set().images[1]))
    (copy / "train/cat/stranger.png").write_bytes(b"no picture")
    with pytest.warns(DataWarning) as told:
        assert open_copy(copy, recipient, tmp_path / "mine", skip_bad=True) == 11
    assert "2 of 13 images do not open with this key" in str(told[-1].message)
    found = opened(tmp_path / "mine")
    assert len(found) == 11 and "train/cat/00001.png" not in found
    for file in copy.rglob("*.png"):
        file.write_bytes(png_bytes(make_set().images[1]))
    refused("12|13", copy, recipient, out=tmp_path / "none", skip_bad=True)


def test_two_files_of_one_name_are_not_made_one(copy, recipient, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(copy / "train/cat", part / "cat")
    shutil.copytree(copy / "train/cat", part / "train" / "cat")
    refused("would both be written as train/cat/00001.png", part, recipient, out=tmp_path / "mine")


def test_images_of_several_sizes_open_together(key, recipient, tmp_path):
    for name, size in (("a", (12, 12)), ("b", (16, 20)), ("c", (12, 12))):
        published_sealed(tmp_path / name, make_set(3, size=size), key)
        shutil.copytree(tmp_path / name / "train", tmp_path / "all" / name)
    shutil.copytree(tmp_path / "a" / "train", tmp_path / "all" / "z")
    assert open_copy(tmp_path / "all", recipient, tmp_path / "mine") == 12
    assert opened(tmp_path / "mine")["train/b/cat/00001.png"].shape == (3, 16, 20)


def test_gray_images_stay_gray(key, recipient, tmp_path):
    clean = make_set(channels=1, size=(24, 24))
    published_sealed(tmp_path / "copy", clean, key)
    open_copy(tmp_path / "copy", recipient, tmp_path / "mine")
    assert torch.equal(opened(tmp_path / "mine")["train/cat/00001.png"], clean.images[1] & 0xFE)


def test_a_key_that_opens_nothing_says_what_to_do(tmp_path):
    clean = make_set()
    key = weights_key(clean)
    published(tmp_path / "copy", clean, signers=[key])
    refused("sees the copy as it is; train on", tmp_path / "copy", key, out=tmp_path / "mine")
