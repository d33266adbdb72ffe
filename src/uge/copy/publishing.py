"""The published folder: 8-bit PNG files in ImageFolder layout, a manifest, a card and checksums.

    out/train/<class>/<id>.png   what everybody gets, nothing else below train/
    out/manifest.json            method, settings, bound, class names, one entry an image
    out/manifest.sig             signatures of the manifest's bytes, one a protector's key
    out/README.md                a card for people, and for `load_dataset` what to read
    out/SHA256SUMS               `sha256sum -c SHA256SUMS` checks the files without this program
    out/.gitattributes           keeps git from changing line endings; a hub may put its own in its place

The layout is read unchanged by torchvision's ImageFolder and Hugging Face's `load_dataset("imagefolder")`. Many images
lie in shards instead (`uge.copy.forms`), which `load_dataset` reads. Nothing of
a key and no hash or statistic of a single original is in it. SHA256SUMS finds accidents and careless edits; whoever
rewrites manifest, sums and signature together is found out by the fingerprint in the key, or with the originals. The
manifest has the card's hash, so that its signature covers everything that a reader of the folder goes by.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack

from torch import Tensor

from uge.copy.chunks import Done, cut
from uge.copy.files import files_of, png_bytes, read_bytes, safe_name
from uge.copy.forms import Form, form_of, write
from uge.copy.manifest import ATTRIBUTES, CARD, MANIFEST, SIGNATURE, SUMS, Manifest, PublishedImage, Shard, signatures
from uge.data import DataWarning
from uge.data.images import ImageSet, pixel_sha256
from uge.durable import check_target, new_folder, sync_files
from uge.errors import PublishError
from uge.keys import Key
from uge.outside import typed


@dataclass(frozen=True)
class Chunk:
    """Images of a copy that are written together, by whatever process.

    Attributes:
        number: of the chunk.
        form: how they are written.
        files: the published path of each; `labels`: of each, too.
        pairs: originals and copies in that order, uint8 [B, C, H, W], those of a pair of one size.
        size: (height, width) at which networks see all images of the copy.
        epsilon_255: the bound that the copies must keep; None without one.
    """

    number: int
    form: Form
    files: Sequence[str]
    labels: Sequence[int]
    pairs: Iterable[tuple[Tensor, Tensor]]
    size: tuple[int, int]
    epsilon_255: int | None


class Facts(TypedDict):
    """What is known of a copy before it is written.

    Attributes:
        method: the protection's name.
        settings: its resolved settings, all of them public.
        epsilon_255: the bound that the copy must keep; None for methods without an L_inf bound, whose largest change is
            measured and stated all the same.
        signers: the protector's key of every recipient; without one the folder is not signed.
    """

    method: str
    settings: dict[str, Any]
    epsilon_255: int | None
    signers: NotRequired[Sequence[Key]]


def publish(clean: ImageSet, protected: Tensor, out: Path | str, **facts: Unpack[Facts]) -> Manifest:
    """Write protected images, uint8 [N, C, H, W] in the order of `clean`; errors as of `write_chunk`, `finish`."""
    out = Path(out)
    check_target(out)
    files, labels = files_of(clean), clean.labels.tolist()
    form = form_of(len(clean), clean.class_names)
    bound, numbers = facts["epsilon_255"], cut(repeat(clean.images[0].numel(), len(clean)), form.most)
    with new_folder(out) as folder:
        chunks = (
            Chunk(number, form, files[at], labels[at], [(clean.images[at], protected[at])], clean.image_size, bound)
            for number, at in enumerate(slice(each.start, each.stop) for each in numbers)
        )
        return finish(folder, clean, (write_chunk(folder, chunk) for chunk in chunks), **facts)


def write_chunk(folder: Path, chunk: Chunk) -> Done:
    """Write the images of a chunk below `folder`; they are on the disk when it returns.

    Returns:
        What `finish` needs, as JSON: `images`, one entry of the manifest each, `sums` of their files, and `change`, the
        largest in steps of 1/255.

    Raises:
        PublishError: the bound is broken.
    """
    entries: list[PublishedImage] = []
    contents: list[bytes] = []
    change = 0
    for originals, copies in chunk.pairs:
        assert copies.shape == originals.shape
        change = max(change, int((copies.short() - originals.short()).abs().max()))
        if chunk.epsilon_255 is not None and change > chunk.epsilon_255:
            raise PublishError(
                f"the perturbation reaches {change}/255, the bound is {chunk.epsilon_255}/255; nothing was published"
            )
        size = None if copies.shape[2:] == chunk.size else (copies.shape[2], copies.shape[3])
        for image in copies:
            file, label = chunk.files[len(entries)], chunk.labels[len(entries)]
            entries.append(PublishedImage(file, label, pixel_sha256(image), size))
            contents.append(png_bytes(image))
    assert len(entries) == len(chunk.files)
    sums = chunk.form.write(folder, chunk.number, entries, contents)
    sync_files([folder / file for file in sums])
    return {"images": [entry.to_dict() for entry in entries], "sums": sums, "change": change}


def finish(folder: Path, clean: ImageSet, written: Iterable[Done], **facts: Unpack[Facts]) -> Manifest:
    """Write what stands beside the images of a copy, which are all there.

    `folder` has what `write_chunk` wrote, and `written` is what it returned, in the order of the images. `clean` are
    the originals, or what networks see of photographs.

    Raises:
        KeyFileError: a signer is a recipient's key.
    """
    from uge import __version__

    signers, change = facts.get("signers", ()), 0
    images: list[PublishedImage] = []
    shards: list[Shard] = []
    with (folder / SUMS).open("w", encoding="utf-8", newline="\n") as sums:
        for chunk in written:
            change = max(change, chunk["change"])
            images += typed(chunk["images"], list[PublishedImage])
            sums.writelines(f"{digest}  {file}\n" for file, digest in chunk["sums"].items())
            listed = (each for each in chunk["sums"].items() if each[0].endswith(".json"))
            shards += (Shard(file, digest, len(chunk["images"])) for file, digest in listed)
        assert len(images) == len(clean)
        manifest = Manifest(
            method=facts["method"],
            settings=facts["settings"],
            epsilon_255=facts["epsilon_255"],
            epsilon_measured_255=change,
            class_names=clean.class_names,
            shape=(clean.channels, *clean.image_size),
            images=tuple(images),
            card_sha256="",
            uge=__version__,
            shards=tuple(shards),
        )
        card = _card(manifest, signers).encode()
        manifest = replace(manifest, card_sha256=write(folder / CARD, card))
        with (folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as lines:
            lines.writelines(manifest.json_parts())
        text = read_bytes(folder / MANIFEST)
        beside = {CARD: manifest.card_sha256, MANIFEST: hashlib.sha256(text).hexdigest()}
        if signers:
            beside[SIGNATURE] = write(folder / SIGNATURE, signatures(signers, text))
        sums.writelines(f"{digest}  {file}\n" for file, digest in beside.items())
    (folder / ATTRIBUTES).write_text("* -text\n", encoding="utf-8", newline="\n")
    if not shards:
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
        warnings.warn(DataWarning(told), stacklevel=4)


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
            "A network that learns from the copy alone, without the key, is expected to be bad.\n"
            "One that learnt from other images before needs little from these, and may be good."
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
    if manifest.shards:
        pattern = "train/*.parquet"
        files = (
            "- `train/<number>.parquet`: the images, for `load_dataset` and any reader of parquet.\n"
            "- `train/<number>.json`: label and pixel hash of every image.\n"
            "- `manifest.json`: settings, class names, and the hash of each of these."
        )
        order = "The parquet files have the class names in the label order."
    else:
        pattern = "train/**/*.png"
        files = (
            "- `train/<class>/<id>.png`: the images, for any loader of class folders.\n"
            "- `manifest.json`: settings, class names, label and pixel hash of every image."
        )
        order = "Loaders that number folders sort them by name; `manifest.json` has the label order."
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: {pattern}
---
# A protected image set

Images: {len(manifest.images)}, {"gray" if manifest.shape[0] == 1 else "RGB"}, {_sizes(manifest)} pixels.
Classes: {len(manifest.class_names)}.
Published with ungeneralizable {manifest.uge}, method `{manifest.method}`.
No value differs from its original by more than {manifest.epsilon_measured_255} of 255; {asked}.

{purpose}
No protection of this kind is proven.
What it was tested against is for the publisher to say.

{files}
- `manifest.sig`, where there is one: who signed manifest and card. The recipient's key says whose signature counts.
- `SHA256SUMS`: check the files with `sha256sum -c SHA256SUMS`, or the whole folder with `uge verify`.

{use}
Lossy formats and resizing destroy what protects, and what opens.
{order}
"""
