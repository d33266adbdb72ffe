import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_folders import EPSILON, key_for, make_set, perturbed, published, published_behind
from torch.utils.data import DataLoader

import uge
from uge.data.images import ImageView
from uge.data.sources import DataWarning, load
from uge.errors import ConfigError, KeyFileError, PublishError
from uge.keys import Key
from uge.keys.keyed_view import with_headroom
from uge.training import Recipe, accuracy_of, fit
from uge.views import Viewing, original_view, view_of


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


def test_the_authorised_view_of_initial_weights_is_the_image(tmp_path):
    clean = make_set()
    key = key_for(clean)
    published(tmp_path / "out", clean, signers=[key])
    for source in (tmp_path / "out", str(tmp_path / "out"), uge.load_published(tmp_path / "out")):
        view = uge.authorised_view(source, key)
        x, y = next(iter(DataLoader(view, batch_size=12)))
        assert torch.equal(x, perturbed(clean.images) / 255) and torch.equal(y, clean.labels)
    x, _ = next(iter(DataLoader(uge.authorised_view(clean, key), batch_size=12)))  # test images
    assert torch.equal(x, clean.images / 255)


def test_a_transform_acts_after_the_view(tmp_path):
    clean = make_set()
    key = key_for(clean)
    published(tmp_path / "out", clean, signers=[key])
    view = uge.authorised_view(tmp_path / "out", key, transform=lambda x: x.flip(2))
    assert torch.equal(view[3][0], perturbed(clean.images)[3].flip(2) / 255)
    with pytest.raises(ConfigError, match="give it to authorised_view"):
        uge.authorised_view(uge.load_published(tmp_path / "out", transform=np.array), key)


def test_a_key_for_other_images_and_a_folder_that_was_changed(tmp_path):
    key = key_for(make_set(size=(4, 4)))
    published(tmp_path / "out", signers=[key])
    with pytest.raises(KeyFileError, match="8x8"):
        uge.authorised_view(tmp_path / "out", key)
    (tmp_path / "out/train/cat/00001.png").unlink()
    with pytest.raises(PublishError, match="00001"):
        uge.load_published(tmp_path / "out")


# -- null-space keys -------------------------------------------------------------------------------------------------


@pytest.fixture
def clean() -> uge.ImageSet:
    return make_set(13)


@pytest.fixture(params=["null-space", "reversible"])
def key(clean: uge.ImageSet, request: pytest.FixtureRequest) -> Key:
    return key_for(clean, request.param)


@pytest.fixture
def out(clean: uge.ImageSet, key: Key, tmp_path: Path) -> Path:
    published_behind(tmp_path / "out", clean, key)
    return tmp_path / "out"


def refused(words: str, *arguments: object, **options: object) -> None:
    with pytest.raises((PublishError, KeyFileError, ConfigError), match=words) as error:
        uge.authorised_view(*arguments, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("headroom", [False, True])
def test_the_view_of_the_copy_is_the_view_of_the_originals(clean, key, headroom, tmp_path):
    published_behind(tmp_path / "out", clean, key, headroom=headroom)
    view = uge.authorised_view(tmp_path / "out", key)
    assert view.headroom_255 == (EPSILON if headroom else 0)
    mine = original_view(clean, key, headroom_255=view.headroom_255)
    assert torch.equal(view.images.images, mine.images) and view.images.images.dtype == torch.float32
    assert not torch.equal(uge.load_published(tmp_path / "out").images.images, clean.images)
    x, y = next(iter(DataLoader(view, batch_size=13)))
    assert torch.equal(x, mine.images / 255) and torch.equal(y, clean.labels)


def test_labels_come_from_the_signed_manifest_and_not_from_what_was_read_before(clean, key, out):
    dataset = uge.load_published(out)
    dataset.images = replace(dataset.images, labels=dataset.images.labels.flip(0))
    assert not torch.equal(dataset.images.labels, clean.labels)
    assert torch.equal(uge.authorised_view(dataset, key).images.labels, clean.labels)


def test_training_on_the_copy_is_training_on_the_originals_bit_for_bit(clean, key, out):
    networks = []
    for images in (uge.authorised_view(out, key).images, original_view(clean, key)):
        networks.append(key.network_module())
        history = fit(networks[-1], images, Recipe(epochs=3, batch_size=4), seed=0, test=view_of(clean, key))
        assert history.accuracy == accuracy_of(networks[-1], view_of(clean, key))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], key.weights[name]) for name in first)


def test_every_way_to_the_published_images_gives_the_same_view(clean, key, out):
    view = uge.authorised_view(out, key).images.images
    dataset = uge.load_published(out)
    copied = uge.ImageSet(dataset.images.images, clean.labels, clean.class_names, tuple(map(str, range(13))))
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert torch.equal(uge.authorised_view(str(out), key).images.images, view)
    assert torch.equal(uge.authorised_view(dataset, key).images.images, view)
    assert torch.equal(uge.authorised_view(copied, key, published=out).images.images, view)
    assert torch.equal(uge.authorised_view(copied.subset(order), key, published=out).images.images, view[order])


def test_renamed_and_moved_files_do_no_harm(key, out):
    view = uge.authorised_view(out, key).images
    (out / "train/cat/00001.png").rename(out / "train/zebra/renamed.png")
    (out / "train/cat/00004.png").rename(out / "train/cat/x.png")
    (out / "train/cat/00007.png").rename(out / "train/cat/00004.png")
    again = uge.authorised_view(out, key).images
    assert torch.equal(again.images, view.images) and torch.equal(again.labels, view.labels)
    with pytest.raises(PublishError):  # whoever has no key to check the signature with cannot trust the manifest so far
        uge.load_published(out)


def test_lossy_copies_are_explained(clean, key, out):
    for file in out.rglob("*.png"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=95)
    names = uge.load_published(out).images.names
    arrays = [np.array(Image.open(out / f"train/{name}.jpg")) for name in names]
    jpeg = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    refused("13 of 13 images are not in the manifest.*lossy", clean.with_images(jpeg), key, published=out)
    (out / "train/cat/00001.png").unlink()
    refused("no PNG below .* has the pixels of train/cat/00001.png: lossy formats", out, key)


def test_test_images_get_fresh_nonces_and_the_headroom_of_the_training_images(clean):
    key, test = key_for(clean, "null-space"), make_set(5, seed=7)
    space = key.view
    expected = space.view(test.images, space.nonces(test.images, "view"))
    assert torch.equal(uge.authorised_view(test, key).images.images, expected)
    assert not torch.equal(expected, space.view(test.images, space.nonces(test.images)))
    mapped = with_headroom(test.images, 8)
    view = uge.authorised_view(test, key, headroom_255=8)
    assert torch.equal(view.images.images, space.view(mapped, space.nonces(mapped, "view")))
    assert isinstance(view.images, ImageView)


def test_published_images_never_get_fresh_nonces(clean, key, out, tmp_path):
    """They would let the perturbation through, silently."""
    refused("these images were published; give their folder", uge.load_published(out).images, key)
    with pytest.warns(DataWarning, match="is a published copy, read as anybody reads it"):
        load(out, "train")
    published(tmp_path / "plain", clean, signers=[key])
    refused(f"not made with a {key.view.kind} key", tmp_path / "plain", key)


def test_no_view_without_the_signature_of_the_key(clean, key, out, tmp_path):
    other = key_for(clean, key.view.kind)
    dataset = uge.load_published(out)
    refused("is signed by .*, the key trusts .* use the key of this release", out, other)
    refused("is signed by", dataset, other)
    manifest = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(manifest.replace('"nonce": "', '"nonce": "0', 1).replace('"}', '"}', 1))
    refused("nonce '0.*' is not 24 hexadecimal digits", out, key)
    (out / "manifest.json").write_text(manifest + " ")
    refused("edited after it was signed", out, key)
    (out / "manifest.json").write_text(manifest)
    (out / "manifest.sig").write_text("{}")
    refused("no signature, or damaged", out, key)
    (out / "manifest.sig").unlink()
    refused("has no manifest.sig", out, key)
    (out / "manifest.json").unlink()
    refused("is no published folder: cannot read manifest.json", out, key)


def test_a_cache_is_private_and_never_wrong(clean, key, out, tmp_path):
    cache = tmp_path / "views"
    view = uge.authorised_view(out, key, cache=cache).images.images
    (file,) = cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(cache.stat().st_mode) == 0o700
    before = file.stat().st_mtime_ns
    assert torch.equal(uge.authorised_view(out, key, cache=cache).images.images, view)
    assert file.stat().st_mtime_ns == before  # read, not made again
    data = file.read_bytes()
    for damaged in (data[:-1], b"", data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]):
        file.write_bytes(damaged)
        assert torch.equal(uge.authorised_view(out, key, cache=cache).images.images, view)
        assert file.read_bytes() == data
    uge.authorised_view(clean, key, cache=cache)
    uge.authorised_view(clean, key_for(clean, key.view.kind), cache=cache)
    assert len([*cache.iterdir()]) == 3


def test_a_served_network_looks_at_any_image_through_its_key(clean, key):
    network = key.network_module().eval()
    view = view_of(clean, key).images
    assert torch.equal(Viewing(network, key)(clean.images / 255), network(view / 255))
    plain = key_for(clean)
    network = plain.network_module().eval()
    assert torch.equal(Viewing(network, plain)(clean.images / 255), network(clean.images / 255))
