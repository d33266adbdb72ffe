"""Published images as ordinary torch Datasets, for people with their own training code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.keys.key import Key
from uge.publish import load_published as read_images


class PublishedDataset(Dataset[tuple[Any, int]]):
    """A published folder as everybody sees it; with a transform it behaves as torchvision's ImageFolder.

    Args:
        folder: a published folder; every image is checked against the manifest.
        transform: called with the PIL image (mode L or RGB). Without one, items are float32 [C, H, W] in [0, 1],
            ready to be batched.

    Attributes:
        classes: class names in label order, the manifest's.
        class_to_idx: name -> label.
        targets: the label of every image.
        images: the same as an ImageSet.

    Raises:
        PublishError: the folder cannot be read, or differs from what was published.
    """

    def __init__(self, folder: Path | str, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.images = read_images(folder)
        self.transform = transform
        self.classes = list(self.images.class_names)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.targets = self.images.labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.images.images[index], self.targets[index]
        if self.transform is None:
            return to_float(image), label
        array = image.permute(1, 2, 0).contiguous().numpy()
        return self.transform(Image.fromarray(array[:, :, 0] if image.shape[0] == 1 else array)), label


class AuthorisedView(Dataset[tuple[Any, int]]):
    """What the authorised network should see; made by `authorised_view`."""

    def __init__(self, images: ImageSet, transform: Callable[[Tensor], Any] | None) -> None:
        self.images = images
        self.transform = transform
        self.classes = list(images.class_names)
        self.targets = images.labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        view = to_float(self.images.images[index])
        return (view if self.transform is None else self.transform(view)), self.targets[index]


def load_published(folder: Path | str, transform: Callable[[Image.Image], Any] | None = None) -> PublishedDataset:
    """A published folder as a map-style torch Dataset (see `PublishedDataset`)."""
    return PublishedDataset(folder, transform)


def authorised_view(
    source: Path | str | PublishedDataset | ImageSet,
    key: Key,
    transform: Callable[[Tensor], Any] | None = None,
) -> AuthorisedView:
    """The view of the authorised network as a map-style torch Dataset: float32 [C, H, W] and an int label an item.

    A key of initial weights sees the images as they are; normalisation is part of `key.network_module()`. Pass test
    images through here too, so that training and testing see the same thing.

    Args:
        source: a published folder, its Dataset, or an ImageSet such as the test images.
        key: the recipient's key.
        transform: augmentation, called with the float tensor. It acts after the view, on tensors: a view need not be
            an 8-bit image.

    Raises:
        KeyFileError: the key is for other images.
        PublishError: the folder cannot be read, or differs from what was published.
        ConfigError: the Dataset carries a transform of its own.
    """
    if isinstance(source, PublishedDataset):
        if source.transform is not None:
            raise ConfigError(
                "the Dataset has a transform, and it would act before the view; give it to authorised_view"
            )
        images = source.images
    else:
        images = source if isinstance(source, ImageSet) else read_images(source)
    key.check_fits(images)
    return AuthorisedView(images, transform)
