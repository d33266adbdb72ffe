"""The published folder: 8-bit PNG files in ImageFolder layout, a manifest, a card and checksums.

    out/train/<class>/<id>.png   what everybody gets, nothing else below train/
    out/manifest.json            method, settings, bound, class names, one entry an image
    out/manifest.sig             signatures of the manifest's bytes, one a protector's key
    out/README.md                a card for people
    out/SHA256SUMS               `sha256sum -c SHA256SUMS` checks the files without this program

The layout is read unchanged by torchvision's ImageFolder and Hugging Face's `load_dataset("imagefolder")`. Nothing of
a key and no hash or statistic of a single original is in it. SHA256SUMS finds accidents and careless edits; whoever
rewrites manifest, sums and signature together is found out by the fingerprint in the key, or with the originals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from uge.copy.files import check_target, files_of, new_folder, png_bytes
from uge.copy.manifest import CARD, MANIFEST, SIGNATURE, SUMS, Manifest, PublishedImage, signatures
from uge.data.images import ImageSet, pixel_sha256
from uge.errors import PublishError
from uge.keys import Key


def publish(
    clean: ImageSet,
    protected: Tensor | Iterable[Tensor],
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
            which are then never held together.
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

        def write(file: str, data: bytes) -> None:
            (folder / file).write_bytes(data)
            sums.write(f"{hashlib.sha256(data).hexdigest()}  {file}\n")

        for parent in sorted({file.rpartition("/")[0] for file in files}):
            (folder / parent).mkdir(parents=True)
        for part in protected.split(1000) if isinstance(protected, Tensor) else protected:
            originals = clean.images[len(entries) : len(entries) + len(part)]
            assert part.shape == originals.shape
            measured = max(measured, int((part.short() - originals.short()).abs().max()))
            if epsilon_255 is not None and measured > epsilon_255:
                raise PublishError(
                    f"the perturbation reaches {measured}/255, the bound is {epsilon_255}/255; nothing was published"
                )
            for image in part:
                file, label = files[len(entries)], labels[len(entries)]
                write(file, png_bytes(image))
                entries.append(PublishedImage(file, label, pixel_sha256(image)))
        assert len(entries) == len(clean)
        manifest = Manifest(method, settings, epsilon_255, measured, clean.class_names, tuple(entries), __version__)
        with (folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as lines:
            lines.writelines(manifest.json_parts())
        text = (folder / MANIFEST).read_bytes()
        sums.write(f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n")
        if signers:
            write(SIGNATURE, signatures(signers, text))
        write(CARD, _card(manifest, clean, signers).encode())
    return manifest


def _card(manifest: Manifest, images: ImageSet, signers: Sequence[Key]) -> str:
    """README.md of a published folder."""
    height, width = images.image_size
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

{len(images)} {"gray" if images.channels == 1 else "RGB"} images of {height}x{width} pixels in {images.classes} classes.
Published with ungeneralizable {manifest.uge}, method `{manifest.method}`.
No value differs from its original by more than {manifest.epsilon_measured_255} of 255; {asked}.

{purpose}
No protection of this kind is proven.
What it was tested against is for the publisher to say.

- `train/<class>/<id>.png`: the images, for any loader of class folders.
- `manifest.json`: settings, class names, label and pixel hash of every image.
- `manifest.sig`, where there is one: who signed. The recipient's key says whose signature counts.
- `SHA256SUMS`: check the files with `sha256sum -c SHA256SUMS`, or the whole folder with `uge verify`.

{use}
Lossy formats and resizing destroy what protects, and what opens.
Loaders that number folders sort them by name; `manifest.json` has the label order.
"""
