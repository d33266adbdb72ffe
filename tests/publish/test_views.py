import numpy as np
import pytest
import torch
from PIL import Image
from published_folders import make_set, perturbed, published
from torch.utils.data import DataLoader

import uge
from uge.errors import ConfigError, KeyFileError, PublishError
from uge.keys import Key, new_key
from uge.networks import NetworkSpec
from uge.training import Recipe


def key_for(images: uge.ImageSet) -> Key:
    spec = NetworkSpec("mlp", images.channels, images.image_size, images.classes, {"width": 8})
    half = (0.5,) * images.channels
    return new_key(spec, images.class_names, half, half, Recipe())


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
    published(tmp_path / "out", clean)
    key = key_for(clean)
    for source in (tmp_path / "out", str(tmp_path / "out"), uge.load_published(tmp_path / "out")):
        view = uge.authorised_view(source, key)
        x, y = next(iter(DataLoader(view, batch_size=12)))
        assert torch.equal(x, perturbed(clean.images) / 255) and torch.equal(y, clean.labels)
    x, _ = next(iter(DataLoader(uge.authorised_view(clean, key), batch_size=12)))  # test images
    assert torch.equal(x, clean.images / 255)


def test_a_transform_acts_after_the_view(tmp_path):
    clean = make_set()
    published(tmp_path / "out", clean)
    view = uge.authorised_view(tmp_path / "out", key_for(clean), transform=lambda x: x.flip(2))
    assert torch.equal(view[3][0], perturbed(clean.images)[3].flip(2) / 255)
    with pytest.raises(ConfigError, match="give it to authorised_view"):
        uge.authorised_view(uge.load_published(tmp_path / "out", transform=np.array), key_for(clean))


def test_a_key_for_other_images_and_a_folder_that_was_changed(tmp_path):
    published(tmp_path / "out")
    with pytest.raises(KeyFileError, match="8x8"):
        uge.authorised_view(tmp_path / "out", key_for(make_set(size=(4, 4))))
    (tmp_path / "out/train/cat/00001.png").unlink()
    with pytest.raises(PublishError, match="00001"):
        uge.load_published(tmp_path / "out")
