"""A copy, read once and checked once: for training, for opening, and as torch Datasets for one's own training code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from uge.copy.files import PNG_ERRORS, CopyTree, read_bytes, read_png, what_became_of
from uge.copy.forms import Place, image_in, places_of
from uge.copy.manifest import MANIFEST, SIGNATURE, Manifest, PublishedImage, read_manifest
from uge.data import Limits, load
from uge.data.decoding import picture_of, resized
from uge.data.images import ImageSet, pixel_sha256, to_float
from uge.errors import ConfigError, PublishError
from uge.keys import Key


class CopyDataset(Dataset[tuple[Any, int]]):
    """Images as everybody sees them; with a transform it behaves as torchvision's ImageFolder.

    Args:
        images: to show.
        transform: called with the PIL image (mode L or RGB). Without one, items are float32 [C, H, W] in [0, 1],
            ready to be batched.

    Attributes:
        images: the same as an ImageSet.
        classes: class names in label order.
        class_to_idx: name -> label.
        targets: the label of every image.
    """

    def __init__(self, images: ImageSet, transform: Callable[[Any], Any] | None = None) -> None:
        self.images = images
        self.transform = transform
        self.classes = list(images.class_names)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.targets: list[int] = images.labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.images.images[index], self.targets[index]
        return (to_float(image) if self.transform is None else self.transform(self._shown(image))), label

    def _shown(self, image: Tensor) -> Any:
        """What the transform is called with."""
        return picture_of(image)


class AuthorisedDataset(CopyDataset):
    """Images as the recipient's network sees them; the transform is called with the float32 tensor [C, H, W]."""

    def _shown(self, image: Tensor) -> Any:
        return to_float(image)


@dataclass(frozen=True, eq=False)
class Copy:
    """A published folder; `Copy.read` makes it.

    Attributes:
        folder: that it was read from.
        manifest: None for a folder of another program, in ImageFolder layout.
        images: every pixel and label as the manifest has them; of photographs, what networks see of them.
        signed_by: fingerprint of the key that its signature was held against; None if against none.

    Example:
        >>> copy = uge.Copy.read("copy", recipient)
        >>> copy.view(recipient).images.equal(images.images & 0xFE)
        True
    """

    folder: Path
    manifest: Manifest | None
    images: ImageSet
    signed_by: str | None = None

    @classmethod
    def read(
        cls,
        folder: Path | str,
        key: Key | None = None,
        *,
        size: int | None = None,
        convert: bool = False,
        skip_bad: bool = False,
        limits: Limits | None = None,
    ) -> Copy:
        """Read a published folder, or without a key any ImageFolder of another program.

        Args:
            folder: to read.
            key: its protector must have signed the folder. Labels and hashes can then be trusted, so files that were
                renamed or moved inside the folder are found by their pixels.
            size: side of the square, in pixels, that networks see the images at; None for what the manifest says.
            convert: of a folder of another program, as `uge.load` says.
            skip_bad: of a folder of another program, as `uge.load` says.
            limits: what the folder may ask for, as `uge.load` says.

        Raises:
            PublishError: a file is missing or unreadable, or differs from what was published; or see `read_manifest`.
            DataError: it is no folder of images at all.
        """
        folder = Path(folder)
        if key is None and not (folder / MANIFEST).exists():
            if (folder / SIGNATURE).exists():
                raise PublishError(f"{folder} has lost its {MANIFEST}: get the published folder again")
            return cls(folder, None, load(folder, "train", convert=convert, skip_bad=skip_bad, limits=limits))
        signed_by = key.fingerprint if key else None
        manifest = read_manifest(folder, signed_by=signed_by)
        manifest = manifest if size is None else manifest.resized_to(size)
        asked = len(manifest.images) * math.prod(manifest.shape)
        largest = max(math.prod(manifest.shape_of(entry)[1:]) for entry in manifest.images)
        (limits or Limits()).check(str(folder), bytes=asked, pixels=max(largest, math.prod(manifest.shape[1:])))
        return cls(folder, manifest, _images(folder, manifest, signed=key is not None), signed_by)

    @property
    def seen_at(self) -> dict[str, Any]:
        """How `load` reads other images, so that networks see them as they see these."""
        own_sizes = self.manifest is not None and self.manifest.own_sizes
        return {"image_size": self.images.image_size, "cut": not own_sizes}

    def view(self, key: Key) -> ImageSet:
        """The images as the key's network sees them: letters opened, or as they are for a key of initial weights.

        Letters are opened at an image's own size; what networks see is resized from that.

        Raises:
            PublishError: the folder is not signed by the key's protector, or letters do not open.
            KeyFileError: the key is for other images.
        """
        if self.signed_by != key.fingerprint:
            own_sizes = self.manifest is not None and self.manifest.own_sizes
            return Copy.read(self.folder, key, size=self.images.image_size[0] if own_sizes else None).view(key)
        key.check_fits(self.images)
        found = self.resized_view(key)
        return self.images.with_images(key.opened(self.images.images)) if found is None else found

    def resized_view(self, key: Key | None) -> ImageSet | None:
        """The view of photographs of sizes of their own; None without a key that opens, or where `images` open."""
        if key is None or self.manifest is None or not (self.manifest.own_sizes and key.opens):
            return None
        return _images(self.folder, self.manifest, signed=True, key=key)


def load_published(source: Path | str | Copy, transform: Callable[[Image.Image], Any] | None = None) -> CopyDataset:
    """What everybody without a key sees of a copy, as a map-style torch Dataset: an image and an int label an item.

    Args:
        source: a copy or its folder.
        transform: called with the PIL image; without one, items are float32 [C, H, W] in [0, 1].

    Raises:
        PublishError: the folder cannot be read, or differs from what its manifest says.

    Example:
        >>> image, label = uge.load_published("copy")[0]
        >>> image.shape, label
        (torch.Size([3, 32, 32]), 0)
    """
    return CopyDataset((source if isinstance(source, Copy) else Copy.read(source)).images, transform)


def authorised_view(
    source: Path | str | Copy | ImageSet, key: Key, transform: Callable[[Tensor], Any] | None = None
) -> AuthorisedDataset:
    """What the recipient's network sees as a map-style torch Dataset: float32 [C, H, W] and an int label an item.

    Pass test images through here too, so that training and testing see the same thing.

    Args:
        source: a copy or its folder, or an ImageSet that was never published, such as the test images.
        key: the recipient's key; a copy must be signed by its protector.
        transform: augmentation, called with the float tensor.

    Raises:
        KeyFileError: the key is for other images.
        PublishError: the folder cannot be read, differs from what was published, or is not signed by the protector.
        ConfigError: the images of an ImageSet are published ones.

    Example:
        >>> train = uge.authorised_view("copy", recipient)
        >>> test = uge.authorised_view(uge.load("photos", "test"), recipient)
        >>> len(torch.utils.data.DataLoader(train, batch_size=4, shuffle=True)), len(test)
        (3, 4)
    """
    if not isinstance(source, ImageSet):
        copy = source if isinstance(source, Copy) else Copy.read(source, key)
        return AuthorisedDataset(copy.view(key), transform)
    key.check_fits(source)
    if key.opens and key.open_each(source.images[:1])[1].any():
        raise ConfigError("these images were published: give the folder of the copy, so that its letters are opened")
    return AuthorisedDataset(source.with_images(key.seen(source.images)), transform)


def _images(folder: Path, manifest: Manifest, *, signed: bool, key: Key | None = None) -> ImageSet:
    """The images in the manifest's order, every pixel and label checked against the manifest.

    Those of another size than the manifest's shape are resized to it, with a key after their letters are opened.

    Raises:
        PublishError: a file is missing or unreadable, or differs from what was published.
    """
    tree = CopyTree.of(folder)
    places = places_of(tree, manifest)
    if not signed:  # before memory is taken for them
        missing = [entry.file for entry in manifest.images if entry.file not in places]
        if missing:
            raise PublishError(f"{folder / missing[0]} is missing, one of {len(missing)}; run 'uge verify {folder}'")
    try:
        images = torch.empty((len(manifest.images), *manifest.shape), dtype=torch.uint8)
    except RuntimeError as error:
        gigabytes = len(manifest.images) * math.prod(manifest.shape) / 1e9
        raise PublishError(f"the images of {folder} take {gigabytes:,.0f} GB, more than there is memory") from error
    by_pixels: dict[str, Path] | None = None
    for index, entry in enumerate(manifest.images):
        try:
            image = _image(folder, places, manifest, entry)
        except PublishError:
            if not signed:
                raise
            by_pixels = files_by_pixels(tree.pngs) if by_pixels is None else by_pixels
            if entry.sha256 not in by_pixels:
                raise
            image = read_png(read_bytes(by_pixels[entry.sha256]))
        if key is not None:
            image = key.opened(image[None])[0]
        images[index] = resized(image, manifest.shape[1:])
    labels = torch.tensor([entry.label for entry in manifest.images], dtype=torch.int64)
    names = tuple(entry.file.removeprefix("train/").removesuffix(".png") for entry in manifest.images)
    return ImageSet(images, labels, manifest.class_names, names)


def _image(folder: Path, places: dict[str, Place], manifest: Manifest, entry: PublishedImage) -> Tensor:
    """The image of an entry, if it lies where it was published, with the pixels and the label that it had."""
    file = folder / entry.file
    data = b""
    try:
        data = places[entry.file].read()
        image = read_png(data)
    except KeyError as error:
        raise PublishError(f"{file} is missing; get the whole folder again, or run 'uge verify {folder}'") from error
    except PNG_ERRORS as error:
        raise PublishError(f"{file}: {what_became_of(data, error)}; run 'uge verify {folder}'") from error
    if tuple(image.shape) != manifest.shape_of(entry):
        raise PublishError(f"{file} was resized or changed in its colours; run 'uge verify {folder}'")
    if pixel_sha256(image) != entry.sha256 or not manifest.in_its_folder(entry):
        raise PublishError(
            f"{file} is not what was published (pixels or label changed): lossy formats and resizing change pixels;"
            f" copy the published files again, or run 'uge verify {folder}'"
        )
    return image


def reader_of(folder: Path, manifest: Manifest) -> Callable[[int], Tensor]:
    """What gives the published image of a number as it lies in the folder, uint8 [C, H, W]; nothing is checked."""
    places = places_of(CopyTree.of(folder), manifest)
    return lambda number: read_png(places[manifest.images[number].file].read())


def files_by_pixels(paths: Iterable[Path]) -> dict[str, Path]:
    """PNG files by their `pixel_sha256`; what is none is passed over."""
    found = ((path, image_in(Place(path))) for path in paths)
    return {pixel_sha256(image): path for path, image in found if image is not None}
