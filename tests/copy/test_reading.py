import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import uge
from uge.copy import Copy
from uge.errors import ConfigError, KeyFileError, PublishError
from uge.keys import SealedKey

from .copies import make_set, perturbed, published, weights_key


@pytest.mark.parametrize("channels", [1, 3])
def test_items_without_a_transform_can_be_batched(channels, tmp_path):
    clean = make_set(channels=channels, size=(5, 9))
    published(tmp_path / "out", clean)
    dataset = uge.load_published(tmp_path / "out")
    x, y = next(iter(DataLoader(dataset, batch_size=12)))
    assert x.dtype == torch.float32 and torch.equal(x, perturbed(clean.images) / 255)
    assert torch.equal(y, clean.labels)
    assert type(dataset[0][1]) is int


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_with_a_transform_it_is_an_image_folder(channels, mode, tmp_path):
    clean = make_set(channels=channels, size=(5, 9))
    published(tmp_path / "out", clean)
    seen = []

    def transform(picture):
        assert isinstance(picture, Image.Image)
        seen.append(picture.mode)
        return np.array(picture).reshape(5, 9, channels)

    dataset = uge.load_published(tmp_path / "out", transform)
    pixels = [torch.from_numpy(dataset[i][0]).permute(2, 0, 1) for i in range(len(dataset))]
    assert torch.equal(torch.stack(pixels), perturbed(clean.images))
    assert seen == [mode] * 12
    assert dataset.classes == ["zebra", "cat", "T-shirt/top"]
    assert dataset.class_to_idx == {"zebra": 0, "cat": 1, "T-shirt/top": 2}
    assert dataset.targets == clean.labels.tolist()


def test_the_view_of_a_key_of_initial_weights_is_the_image(tmp_path):
    clean = make_set()
    key = weights_key(clean)
    published(tmp_path / "out", clean, signers=[key])
    assert torch.equal(Copy.read(tmp_path / "out", key).view(key).images, perturbed(clean.images))
    x, _ = next(iter(DataLoader(uge.authorised_view(clean, key), batch_size=12)))  # test images
    assert torch.equal(x, clean.images / 255)


def test_a_key_for_other_images_and_a_folder_that_was_changed(tmp_path):
    key = weights_key(make_set(size=(4, 4)))
    published(tmp_path / "out", signers=[key])
    with pytest.raises(KeyFileError, match="12x12"):
        uge.authorised_view(tmp_path / "out", key)
    (tmp_path / "out/train/cat/00001.png").unlink()
    with pytest.raises(PublishError, match="00001"):
        uge.load_published(tmp_path / "out")


def test_a_folder_of_another_program_is_read_without_a_key(tmp_path):
    clean = make_set()
    published(tmp_path / "out", clean)
    shutil.copytree(tmp_path / "out" / "train", tmp_path / "foreign")
    copy = Copy.read(tmp_path / "foreign")
    assert copy.manifest is None and copy.images.class_names == ("T-shirt-top", "cat", "zebra")
    assert len(copy.images) == 12


# -- letters ---------------------------------------------------------------------------------------------------------


def refused(words: str, *arguments: object) -> None:
    with pytest.raises((PublishError, KeyFileError, ConfigError), match=words) as error:
        uge.authorised_view(*arguments)
    assert "\n" not in str(error.value)


def test_every_way_to_the_copy_gives_the_originals_but_for_the_lowest_bit(clean, recipient, copy):
    for source in (copy, str(copy), Copy.read(copy), Copy.read(copy, recipient)):
        view = uge.authorised_view(source, recipient)
        x, y = next(iter(DataLoader(view, batch_size=12)))
        assert torch.equal(x, (clean.images & 0xFE) / 255) and torch.equal(y, clean.labels)
    assert not torch.equal(uge.load_published(copy).images.images & 0xFE, clean.images & 0xFE)


def test_a_transform_acts_on_what_the_network_sees(clean, key, copy):
    view = uge.authorised_view(copy, key, lambda x: x.flip(2))
    assert torch.equal(view[3][0], (clean.images & 0xFE)[3].flip(2) / 255)


def test_test_images_are_seen_as_the_opened_ones_are(key):
    test = make_set(5, seed=7)
    assert torch.equal(uge.authorised_view(test, key).images.images, test.images & 0xFE)


def test_published_images_never_pass_for_test_images(key, copy):
    refused("these images were published: give the folder", uge.load_published(copy).images, key)


def test_renamed_and_moved_files_do_no_harm(key, copy):
    view = Copy.read(copy, key).view(key)
    (copy / "train/cat/00001.png").rename(copy / "train/zebra/renamed.png")
    (copy / "train/cat/00004.png").rename(copy / "train/cat/x.png")
    (copy / "train/cat/00007.png").rename(copy / "train/cat/00004.png")
    again = Copy.read(copy, key).view(key)
    assert torch.equal(again.images, view.images) and torch.equal(again.labels, view.labels)
    with pytest.raises(PublishError):  # who has no key to check the signature with cannot trust the manifest so far
        Copy.read(copy)


def test_labels_come_from_the_signed_manifest_alone(clean, key, copy):
    unsigned = Copy.read(copy)
    forged = replace(unsigned, images=replace(unsigned.images, labels=unsigned.images.labels.flip(0)))
    assert torch.equal(forged.view(key).labels, clean.labels)


def test_no_view_without_the_signature_of_the_key(key, copy):
    refused("is signed by .*, the key trusts .* use the key of this release", copy, SealedKey.draw())
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"label": 0', '"label": 1', 1))
    refused("edited after it was signed", copy, key)
    (copy / "manifest.json").write_text(manifest)
    (copy / "manifest.sig").rename(copy / "elsewhere")
    refused("has no manifest.sig", copy, key)
    (copy / "manifest.json").unlink()
    refused("is no published folder: cannot read manifest.json.* with a key only what it signed is read", copy, key)
    (copy / "elsewhere").rename(copy / "manifest.sig")
    with pytest.raises(PublishError, match="has lost its manifest"):
        Copy.read(copy)


def test_a_view_has_the_size_that_was_asked_for(key, copy):
    """Read with the key or without it."""
    for small in (Copy.read(copy, size=6), Copy.read(copy, key, size=6)):
        assert small.view(key).image_size == small.images.image_size == (6, 6)
