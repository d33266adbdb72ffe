"""Published images as ordinary torch Datasets, for one's own training code, and the view that a key gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn
from torch.utils.data import Dataset

from uge.data.images import ImageSet, ImageView, batch_of, to_float, to_uint8
from uge.errors import ConfigError, PublishError
from uge.keys.key import Key
from uge.keys.keyed_view import with_headroom
from uge.publish import load_published as read_images
from uge.publish import read_manifest, with_nonces
from uge.runtime import write_atomically


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
        headroom_255: other images, such as test images, belong on this..255-this before whoever trains on these sees
            them; 0 where the originals were not mapped.

    Raises:
        PublishError: the folder cannot be read, or differs from what was published.
    """

    def __init__(self, folder: Path | str, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.folder = Path(folder)
        self.images = read_images(folder)
        self.headroom_255 = read_manifest(folder).headroom_255
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
    """What the authorised network should see; made by `authorised_view`.

    Attributes:
        images: the same as an image set.
        headroom_255: what test images need, too, before their view (see `authorised_view`).
    """

    def __init__(self, images: ImageSet, transform: Callable[[Tensor], Any] | None, headroom_255: int) -> None:
        self.images = images
        self.transform = transform
        self.headroom_255 = headroom_255
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
    *,
    published: Path | str | None = None,
    headroom_255: int = 0,
    cache: Path | None = None,
) -> AuthorisedView:
    """The view of the authorised network as a map-style torch Dataset: float32 [C, H, W] and an int label an item.

    A key of initial weights sees the images as they are; normalisation is part of `key.network_module()`. A key with a
    view sees what the perturbation cannot reach, or takes it away. Pass test images through here too, so that training
    and testing see the same thing.

    Args:
        source: a published folder, its Dataset, or an ImageSet such as the test images.
        key: the recipient's key; a published folder must be signed by its protector.
        transform: augmentation, called with the float tensor. It acts after the view, on tensors: a view need not be
            an 8-bit image.
        published: the folder that the images of an ImageSet were published in, where they were: nonces are found
            there by their pixels. Images that were never published need none.
        headroom_255: of images that were never published, the `headroom_255` of the training view.
        cache: a private folder that keeps the views of keys that have one.

    Raises:
        KeyFileError: the key is for other images.
        PublishError: the folder cannot be read, differs from what was published, or is not signed by the protector.
        ConfigError: the Dataset carries a transform of its own, or a published ImageSet comes without its folder.
    """
    if isinstance(source, PublishedDataset):
        if source.transform is not None:
            raise ConfigError(
                "the Dataset has a transform, and it would act before the view; give it to authorised_view"
            )
        source = source.folder  # read again: what was read before was not held against this key's signature
    if isinstance(source, ImageSet):
        images = source
        if published is None and images.nonces is not None:
            raise ConfigError("these images were published; give their folder, so that its signature can be checked")
    else:
        images, published = read_images(source, signed_by=key.fingerprint), source
    key.check_fits(images)
    if published is not None:
        manifest = read_manifest(published, signed_by=key.fingerprint)
        images, headroom_255 = with_nonces(images, manifest), manifest.headroom_255
        check_nonces(images, key)
    return AuthorisedView(view_of(images, key, headroom_255=headroom_255, cache=cache), transform, headroom_255)


def check_nonces(published: ImageSet, key: Key) -> None:
    """Refuse published images whose view through this key would be wrong.

    Raises:
        PublishError: a key with a view of its own, and a copy that was not made with such a key.
    """
    if key.view is not None and published.nonces is None:
        raise PublishError(
            f"the copy has no nonces, so it was not made with a {key.view.kind} key; use the key that it was made with"
        )


def view_of(images: ImageSet, key: Key, *, headroom_255: int = 0, cache: Path | None = None) -> ImageSet:
    """The images as the key's network sees them; unchanged for a key without a view of its own.

    Args:
        images: uint8 images. Those with nonces are published copies.
        key: any key.
        headroom_255: map images that were not published onto this..255-this first.
        cache: a private folder that keeps the views.
    """
    space = key.view
    if space is None:
        return images
    if images.nonces is not None:
        nonces = images.nonces
        return _views(images, key, lambda chosen: space.view(images.images[chosen], nonces[chosen]), "copies", cache)
    pixels = with_headroom(images.images, headroom_255) if headroom_255 else images.images
    purpose = f"others {headroom_255}"
    return _views(images, key, lambda chosen: space.view_of_others(pixels[chosen]), purpose, cache)


def original_view(originals: ImageSet, key: Key, *, headroom_255: int = 0) -> ImageSet:
    """The view of the originals: bit for bit that of their published copies, which `headroom_255` was used for."""
    space = key.view
    if space is None:
        return originals
    pixels = with_headroom(originals.images, headroom_255) if headroom_255 else originals.images
    return _views(originals, key, lambda chosen: space.view_of_originals(pixels[chosen]), "originals", None)


def _views(images: ImageSet, key: Key, part: Callable[[slice], Tensor], purpose: str, cache: Path | None) -> ImageView:
    """The views of all images, a batch at a time, or those kept from the last time."""

    def compute() -> Tensor:
        views = torch.empty(images.images.shape, dtype=torch.float32)
        step = batch_of(images.images.shape[1:])
        for start in range(0, len(images), step):
            views[start : start + step] = part(slice(start, start + step))
        return views

    if cache is None:
        views = compute()
    else:
        name = hashlib.sha256(f"{key.digest()} {images.digest()} {purpose} ".encode() + b"".join(images.nonces or ()))
        views = _kept(cache / f"{name.hexdigest()[:32]}.views", images.images.shape, compute)
    return ImageView(views, images.labels, images.class_names, images.names)


class Viewing(nn.Module):
    """A trained authorised network that answers questions about any image, as its owner would serve it.

    Args:
        network: the trained network.
        key: its key; one with a view of its own looks through it at each image, rounded to 8 bits.
        headroom_255: what the network was trained with.
    """

    def __init__(self, network: nn.Module, key: Key, headroom_255: int = 0) -> None:
        super().__init__()
        self.network = network
        self.space = key.view
        self.headroom_255 = headroom_255

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, C, H, W] in [0, 1] -> logits [B, K]."""
        if self.space is None:
            return self.network(x)
        images = to_uint8(x).cpu().contiguous()
        if self.headroom_255:
            images = with_headroom(images, self.headroom_255)
        views = self.space.view_of_others(images)
        return self.network(to_float(views).to(x.device).contiguous(memory_format=torch.channels_last))


def _kept(file: Path, shape: Sequence[int], compute: Callable[[], Tensor]) -> Tensor:
    """What a private file holds, or else what `compute` gives, kept there for the next time."""
    try:
        data = file.read_bytes()
        if hashlib.sha256(data[:-32]).digest() == data[-32:]:
            kept = safetensors.load(data[:-32])["views"]
            if kept.shape == shape and kept.dtype == torch.float32:
                return kept
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError) as error:
        raise PublishError(f"cannot read {file}: {error}; delete it, it is made again") from error
    views = compute()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PublishError(f"cannot write {file}: {error.strerror or error}") from error
    data = safetensors.save({"views": views})
    write_atomically(file, data + hashlib.sha256(data).digest(), mode=0o600)
    return views
