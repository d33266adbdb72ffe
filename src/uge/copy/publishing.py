"""The published folder: 8-bit PNG files in ImageFolder layout, a manifest, a card and checksums.

    out/train/<class>/<id>.png   what everybody gets, nothing else below train/
    out/manifest.json            method, settings, bound, class names, one entry an image
    out/manifest.sig             signatures of the manifest's bytes, one a protector's key
    out/README.md                a card for people, and for `load_dataset` what to read
    out/SHA256SUMS               `sha256sum -c SHA256SUMS` checks the files without this program
    out/.gitattributes           keeps git from changing line endings; a hub may put its own in its place

The layout is read unchanged by torchvision's ImageFolder and Hugging Face's `load_dataset("imagefolder")`. Nothing of
a key and no hash or statistic of a single original is in it. SHA256SUMS finds accidents and careless edits; whoever
rewrites manifest, sums and signature together is found out by the fingerprint in the key, or with the originals. The
manifest has the card's hash, so that its signature covers everything that a reader of the folder goes by.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from uge.copy.files import files_of, png_bytes, read_bytes, safe_name
from uge.copy.manifest import (
    ATTRIBUTES,
    CARD,
    MANIFEST,
    SIGNATURE,
    SUMS,
    Manifest,
    PublishedImage,
    signatures,
)
from uge.data import DataWarning
from uge.data.images import ImageSet, pixel_sha256
from uge.durable import check_target, new_folder
from uge.errors import PublishError
from uge.keys import Key


def publish(
    clean: ImageSet,
    protected: Tensor | Iterable[Tensor] | Iterable[tuple[Tensor, Tensor]],
    out: Path | str,
    *,
    method: str,
    settings: dict[str, Any],
    epsilon_255: int | None,
    signers: Sequence[Key] = (),
) -> Manifest:
    """Write a protected copy. The folder appears whole, by one rename, or not at all.

    Args:
        clean: the originals; only the largest change against them is stated.
        protected: the images to publish in the order of `clean`, uint8 [N, C, H, W], or such tensors batch by batch,
            which are then never held together; or (originals, copies), where `clean` is only what networks see of
            photographs of other sizes.
        out: the folder to make; may exist if it is empty.
        method: the protection's name.
        settings: its resolved settings, all of them public.
        epsilon_255: the bound that the copy must keep; None for methods without an L_inf bound, whose largest change is
            measured and stated all the same.
        signers: the protector's key of every recipient; without one the folder is not signed.

    Returns:
        The manifest that was written.

    Raises:
        PublishError: the bound is broken, `out` is not empty, or the disk is full or read-only.
        KeyFileError: a signer is a recipient's key.
    """
    from uge import __version__

    out = Path(out)
    check_target(out)
    files, labels = files_of(clean), clean.labels.tolist()
    measured = 0
    entries: list[PublishedImage] = []
    with new_folder(out) as folder, (folder / SUMS).open("w", encoding="utf-8", newline="\n") as sums:

        def write(file: str, data: bytes) -> str:
            (folder / file).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            sums.write(f"{digest}  {file}\n")
            return digest

        for parent in sorted({file.rpartition("/")[0] for file in files}):
            (folder / parent).mkdir(parents=True)
        for given in protected.split(1000) if isinstance(protected, Tensor) else protected:
            originals, part = (
                (clean.images[len(entries) : len(entries) + len(given)], given) if isinstance(given, Tensor) else given
            )
            assert part.shape == originals.shape
            size = None if part.shape[2:] == clean.images.shape[2:] else (part.shape[2], part.shape[3])
            measured = max(measured, int((part.short() - originals.short()).abs().max()))
            if epsilon_255 is not None and measured > epsilon_255:
                raise PublishError(
                    f"the perturbation reaches {measured}/255, the bound is {epsilon_255}/255; nothing was published"
                )
            for image in part:
                file, label = files[len(entries)], labels[len(entries)]
                write(file, png_bytes(image))
                entries.append(PublishedImage(file, label, pixel_sha256(image), size))
        assert len(entries) == len(clean)
        channels, height, width = clean.images.shape[1:]
        manifest = Manifest(
            method=method,
            settings=settings,
            epsilon_255=epsilon_255,
            epsilon_measured_255=measured,
            class_names=clean.class_names,
            shape=(channels, height, width),
            images=tuple(entries),
            card_sha256="",
            uge=__version__,
        )
        manifest = replace(manifest, card_sha256=write(CARD, _card(manifest, signers).encode()))
        with (folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as lines:
            lines.writelines(manifest.json_parts())
        text = read_bytes(folder / MANIFEST)
        sums.write(f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n")
        if signers:
            write(SIGNATURE, signatures(signers, text))
        (folder / ATTRIBUTES).write_text("* -text\n", encoding="utf-8", newline="\n")
    _tell_order(clean.class_names)
    return manifest


def _tell_order(class_names: Sequence[str]) -> None:
    """Say it where those who number folders by name number the classes otherwise."""
    folders = [safe_name(name) for name in class_names]
    moved = [at for at, (ours, theirs) in enumerate(zip(folders, sorted(folders), strict=True)) if ours != theirs]
    if moved:
        told = (
            f"readers that number class folders by name number {len(moved)} of {len(folders)} classes otherwise than"
            f" the data: {moved[0]} is {sorted(folders)[moved[0]]!r} there, {folders[moved[0]]!r} here; {MANIFEST} has"
            " the order"
        )
        warnings.warn(DataWarning(told), stacklevel=3)


def _sizes(manifest: Manifest) -> str:
    """Height and width of the images, or of the smallest and the largest."""
    sizes = {manifest.shape_of(entry)[1:] for entry in manifest.images}
    told = [f"{height}x{width}" for height, width in sorted(sizes, key=lambda size: (size[0] * size[1], size))]
    return told[0] if len(told) == 1 else f"{told[0]} to {told[-1]}"


def _card(manifest: Manifest, signers: Sequence[Key]) -> str:
    """README.md of a published folder."""
    asked = "no bound was asked" if manifest.epsilon_255 is None else f"{manifest.epsilon_255} was allowed"
    if any(key.opens for key in signers):
        purpose = (
            "Whoever holds the recipient's key has the originals back, exact but for the lowest bit.\n"
            "A network that learns from the copy without the key is expected to be bad."
        )
        use = (
            "With the recipient's key `uge open` writes the originals as a plain folder.\n"
            "In Python `uge.authorised_view` does the same."
        )
    elif signers:
        purpose = (
            "The images are made to be learnt by one network, which a key defines.\n"
            "Another network that learns from them is expected to be worse."
        )
        use = "With the recipient's key `uge train` trains that network."
    elif "lock" in manifest.settings:
        purpose = "A network that learns from the copy as it is is expected to be bad.\nA secret lock undoes it."
        use = "With the lock `uge open` writes the originals as a plain folder, up to rounding."
    else:
        purpose = "The images are made to be learnt by nobody: there is no key."
        use = "There is nothing to open."
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**/*.png
---
# A protected image set

{len(manifest.images)} {"gray" if manifest.shape[0] == 1 else "RGB"} images of {_sizes(manifest)} pixels.
They show {len(manifest.class_names)} classes.
Published with ungeneralizable {manifest.uge}, method `{manifest.method}`.
No value differs from its original by more than {manifest.epsilon_measured_255} of 255; {asked}.

{purpose}
No protection of this kind is proven.
What it was tested against is for the publisher to say.

- `train/<class>/<id>.png`: the images, for any loader of class folders.
- `manifest.json`: settings, class names, label and pixel hash of every image.
- `manifest.sig`, where there is one: who signed manifest and card. The recipient's key says whose signature counts.
- `SHA256SUMS`: check the files with `sha256sum -c SHA256SUMS`, or the whole folder with `uge verify`.

{use}
Lossy formats and resizing destroy what protects, and what opens.
Loaders that number folders sort them by name; `manifest.json` has the label order.
"""
