"""The published folder: 8-bit PNG files in ImageFolder layout, a manifest, a card and checksums; writing and checking.

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
import io
import json
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uge.data.images import ImageSet, batch_of, pixel_sha256
from uge.errors import PublishError
from uge.keys.key import Key
from uge.keys.keyed_view import NONCE_BYTES, KeyedView, with_headroom
from uge.keys.signature import fingerprint_of, is_signed
from uge.runtime import check_writable

FORMAT_VERSION = 1
MANIFEST, SIGNATURE, CARD, SUMS = "manifest.json", "manifest.sig", "README.md", "SHA256SUMS"
# A perturbation is noise to a compressor: it finds nothing to repeat, and searching would cost a quarter more time for
# files 0.1% to 0.5% smaller. What runs there are, black margins say, it finds.
COMPRESSION = {"compress_level": 6, "compress_type": zlib.Z_RLE}
LONGEST_NAME = 255  # bytes, of file systems everywhere
PNG_ERRORS = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """One entry of the manifest.

    Attributes:
        file: "train/<class>/<id>.png".
        label: position in the manifest's class names.
        sha256: `pixel_sha256` of the published pixels.
        nonce: in hexadecimal; what a key with a view needs besides its secret.
    """

    file: str
    label: int
    sha256: str
    nonce: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PublishedImage:
        nonce = data.get("nonce")
        if nonce is not None and not re.fullmatch(f"[0-9a-f]{{{2 * NONCE_BYTES}}}", str(nonce)):
            raise ValueError(f"nonce '{nonce}' is not {2 * NONCE_BYTES} hexadecimal digits")
        return cls(str(data["file"]), int(data["label"]), str(data["sha256"]), nonce)

    def to_dict(self) -> dict[str, Any]:
        data = {"file": self.file, "label": self.label, "sha256": self.sha256}
        return data if self.nonce is None else data | {"nonce": self.nonce}


@dataclass(frozen=True)
class Manifest:
    """What a published folder says about itself.

    Attributes:
        method: the protection's name.
        settings: its resolved settings.
        epsilon_255: the bound asked for, max |published - original| in steps of 1/255; None where the method has none.
        epsilon_measured_255: the largest change found in the published 8-bit images.
        class_names: one name a class, in label order.
        images: one entry an image, in the order of the data.
        uge: version of the program that wrote it.
        format_version: of the manifest.
    """

    method: str
    settings: dict[str, Any]
    epsilon_255: int | None
    epsilon_measured_255: int
    class_names: tuple[str, ...]
    images: tuple[PublishedImage, ...]
    uge: str
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """JSON with one line an image, to be read by people too."""
        return "".join(self.json_parts())

    def json_parts(self) -> Iterator[str]:
        """The pieces of `to_json` in their order, so that a large manifest need not be held as one text."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "images"}
        yield json.dumps(facts, indent=1, sort_keys=True)[:-2] + ',\n "images": [\n'
        for number, image in enumerate(self.images, start=1):
            yield f"  {json.dumps(image.to_dict())}{',' if number < len(self.images) else ''}\n"
        yield " ]\n}\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Read a manifest; `where` names it in errors.

        Raises:
            PublishError: no manifest, of another version, or one whose entries do not make sense.
        """
        try:
            data = json.loads(text)
            version = data["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PublishError(f"{where} is no manifest of uge, or damaged; publish again or copy it again") from error
        if version != FORMAT_VERSION:
            raise PublishError(
                f"{where} has format version {version}, this uge reads {FORMAT_VERSION}; use the uge that wrote it"
            )
        try:
            names = tuple(map(str, data["class_names"]))
            images = tuple(map(PublishedImage.from_dict, data["images"]))
            asked = None if data["epsilon_255"] is None else int(data["epsilon_255"])
            whole = {"epsilon_255": asked, "epsilon_measured_255": int(data["epsilon_measured_255"])}
            manifest = cls(**(data | whole | {"class_names": names, "images": images}))
            if not isinstance(manifest.settings, dict):
                raise TypeError("its settings are no table")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PublishError(f"{where} is damaged: {type(error).__name__} {error}; copy it again") from error
        if not images:
            raise PublishError(f"{where} lists no image; publish again")
        seen: set[str] = set()
        for image in images:
            if not re.fullmatch(r"train/[^/\\]+/[^/\\]+\.png", image.file) or "/../" in image.file:
                raise PublishError(f"{where}: '{image.file}' is not train/<class>/<id>.png; copy the folder again")
            try:
                longest = max(len(part.encode()) for part in image.file.split("/"))
            except UnicodeEncodeError:  # half of a surrogate pair, which no publisher writes
                longest = LONGEST_NAME + 1
            if longest > LONGEST_NAME:
                raise PublishError(f"{where}: no disk takes the name {image.file[:40]!a}; copy the folder again")
            if not 0 <= image.label < len(names):
                raise PublishError(f"{where}: label {image.label} of {image.file} has no class name")
            if image.file in seen:
                raise PublishError(f"{where} lists {image.file} twice; copy the folder again")
            seen.add(image.file)
        if len({image.nonce is None for image in images}) > 1:
            raise PublishError(f"{where} has nonces for some images only; copy the folder again")
        return manifest

    @property
    def headroom_255(self) -> int:
        """Originals were first mapped onto this..255-this, and epsilon refers to the mapped images; 0 if not."""
        return self.epsilon_255 or 0 if self.settings.get("headroom") else 0

    @property
    def nonces(self) -> tuple[bytes, ...] | None:
        """One nonce an image, or None where none was needed."""
        found = tuple(bytes.fromhex(image.nonce) for image in self.images if image.nonce is not None)
        return found or None


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        problems: one line each; empty if all is well.
        images: entries of the manifest.
        epsilon_255: the largest change measured against the originals, in steps of 1/255; None without originals
            of the same names.
        budget_used: root mean square of the change over epsilon asked; None without either.
        signature: "valid", "wrong", "none", or "not checked" without a key.
        views: images whose view through the key is, as integers, that of the original; None without originals and a
            key with a view.
        views_sha256: over the integer views of the copy (`views_digest`), where all are identical.
    """

    problems: tuple[str, ...]
    images: int
    epsilon_255: int | None
    budget_used: float | None = None
    signature: str = "not checked"
    views: int | None = None
    views_sha256: str | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


def publish(
    clean: ImageSet,
    protected: Tensor | Iterable[Tensor],
    out: Path | str,
    *,
    method: str,
    settings: dict[str, Any],
    epsilon_255: int | None,
    nonces: Sequence[bytes] | None = None,
    signers: Sequence[Key] = (),
) -> Manifest:
    """Write a protected copy. The folder appears whole, by one rename, or not at all.

    Args:
        clean: the originals; only the largest change against them is stated, after `with_headroom` where the settings
            say `headroom`.
        protected: the images to publish in the order of `clean`, uint8 [N, C, H, W], or such tensors batch by batch,
            which are then never held together.
        out: the folder to make; may exist if it is empty.
        method: the protection's name.
        settings: its resolved settings, all of them public.
        epsilon_255: the bound that the copy must keep; None for methods without an L_inf bound, whose largest change is
            measured and stated all the same.
        nonces: one an image, for keys with a view.
        signers: the protector's key of every recipient; without one the folder is not signed.

    Returns:
        The manifest that was written.

    Raises:
        PublishError: the bound is broken, equal copies have different nonces, `out` is not empty, or the disk is full
            or read-only.
        KeyFileError: a signer is a recipient's key.
    """
    from uge import __version__

    out = Path(out)
    check_target(out)
    headroom = bool(settings.get("headroom"))
    parts = protected.split(1000) if isinstance(protected, Tensor) else protected
    files = files_of(clean)
    labels = clean.labels.tolist()
    measured = 0
    entries: list[PublishedImage] = []
    nonce_of: dict[str, tuple[str | None, str]] = {}  # pixels -> nonce and file
    with new_folder(out) as folder, (folder / SUMS).open("w", encoding="utf-8", newline="\n") as sums:

        def write(file: str, data: bytes) -> None:
            (folder / file).write_bytes(data)
            sums.write(f"{hashlib.sha256(data).hexdigest()}  {file}\n")

        for parent in sorted({file.rpartition("/")[0] for file in files}):
            (folder / parent).mkdir(parents=True)
        for part in parts:
            reference = clean.images[len(entries) : len(entries) + len(part)]
            reference = with_headroom(reference, epsilon_255 or 0) if headroom else reference
            assert part.shape == reference.shape
            measured = max(measured, int((part.short() - reference.short()).abs().max()))
            if epsilon_255 is not None and measured > epsilon_255:
                raise PublishError(
                    f"the perturbation reaches {measured}/255, the bound is {epsilon_255}/255; nothing was published"
                )
            for image in part:
                number = len(entries)
                file, nonce = files[number], None if nonces is None else nonces[number].hex()
                pixels = pixel_sha256(image)
                other, twin = nonce_of.setdefault(pixels, (nonce, file))
                if other != nonce:  # the nonce is found by the pixels, and one of the two would see a wrong view
                    raise PublishError(
                        f"{twin} and {file} would have the same pixels and different nonces; nothing was published:"
                        " leave one of the two out, or raise epsilon"
                    )
                write(file, _png_bytes(image))
                entries.append(PublishedImage(file, labels[number], pixels, nonce))
        assert len(entries) == len(clean)
        manifest = Manifest(method, settings, epsilon_255, measured, clean.class_names, tuple(entries), __version__)
        with (folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as lines:
            lines.writelines(manifest.json_parts())
        text = (folder / MANIFEST).read_bytes()
        sums.write(f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n")
        if signers:
            write(SIGNATURE, _signatures(signers, text))
        write(CARD, _card(manifest, clean).encode())
    return manifest


def write_images(images: ImageSet, out: Path | str) -> None:
    """PNG files out/train/<class>/<id>.png and nothing else: a private folder that any program reads.

    Raises:
        PublishError: `out` is not empty, or cannot be written.
    """
    check_target(out)
    with new_folder(Path(out)) as folder:
        folder.chmod(0o700)
        for file, image in zip(files_of(images), images.images, strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(_png_bytes(image))


def check_target(out: Path | str) -> None:
    """Refuse a target that holds something already; ask before a long run, `publish` asks again.

    Raises:
        PublishError: `out` is a file, a folder that is not empty, or cannot be looked at or written.
    """
    out = Path(out)
    try:
        if out.exists() and not out.is_dir():
            raise PublishError(f"{out} is a file; give a new folder as --out")
        if out.is_symlink() or os.path.ismount(out):
            raise PublishError(
                f"{out} is a link or a mount point, which a new folder cannot replace; give one below it"
            )
        if out.exists() and any(out.iterdir()):
            raise PublishError(f"{out} is not empty; give a new folder as --out, or remove it")
    except OSError as error:
        raise PublishError(f"cannot write {out}: {error.strerror or error}") from error
    check_writable(out)


def files_of(images: ImageSet) -> tuple[str, ...]:
    """The published path "train/<class>/<id>.png" of every image: its own name, made safe for any file system.

    Raises:
        PublishError: two classes or two images would share a path, or a class has no image.
    """
    folders = [_safe(name) for name in images.class_names]
    owners: dict[str, str] = {}
    for folder, name in zip(folders, images.class_names, strict=True):
        if owners.setdefault(folder, name) != name:
            raise PublishError(f"classes {owners[folder]!r} and {name!r} would share the folder '{folder}'; rename one")
    empty = sorted(set(range(images.classes)) - set(images.labels.tolist()))
    if empty:  # ImageFolder numbers the folders it finds: without this one, every later label would shift
        raise PublishError(f"class {images.class_names[empty[0]]!r} has no image; leave the class out or add images")
    files: dict[str, str] = {}
    for name, label in zip(images.names, images.labels.tolist(), strict=True):
        own = name.removeprefix(images.class_names[label] + "/").removeprefix(folders[label] + "/")
        file = f"train/{folders[label]}/{_safe(own)}.png"
        if long := next((part for part in file.split("/") if len(part.encode()) > LONGEST_NAME), None):
            raise PublishError(f"a file called {long[:40]}... would have too long a name; rename {name[:40]}...")
        if file in files:
            raise PublishError(f"images {files[file]!r} and {name!r} would both become {file}; rename one")
        files[file] = name
    return tuple(files)


def read_manifest(folder: Path | str, *, signed_by: str | None = None) -> Manifest:
    """The manifest of a published folder.

    Args:
        folder: a published folder.
        signed_by: the fingerprint in a key; the manifest must carry the signature that goes with it.

    Raises:
        PublishError: there is none, it cannot be read, or it is not signed by that key.
    """
    path = Path(folder) / MANIFEST
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PublishError(f"{folder} is no published folder: cannot read {MANIFEST}: {reason}") from error
    manifest = Manifest.from_json(text, str(path))
    if signed_by is not None:
        _check_signature(Path(folder), data, signed_by)
    return manifest


def _signatures(signers: Sequence[Key], message: bytes) -> bytes:
    """manifest.sig: one Ed25519 signature a signer, each beside the public key that checks it."""
    pairs = [key.sign(message) for key in signers]
    signatures = [{"public_key": public.hex(), "signature": signature.hex()} for public, signature in pairs]
    return (json.dumps({"algorithm": "ed25519", "signatures": signatures}, indent=1) + "\n").encode()


def _check_signature(folder: Path, message: bytes, fingerprint: str) -> None:
    """Whether manifest.sig holds a signature of `message` by the key of this fingerprint.

    The public key in the folder counts only because its hash is the one that the recipient's key names.

    Raises:
        PublishError: not signed, signed by another key, or edited since.
    """
    try:
        data = json.loads((folder / SIGNATURE).read_bytes())
        if data["algorithm"] != "ed25519":
            raise ValueError
        pairs = [(bytes.fromhex(s["public_key"]), bytes.fromhex(s["signature"])) for s in data["signatures"]]
    except FileNotFoundError as error:
        raise PublishError(
            f"{folder} has no {SIGNATURE}: expected the signature of the key's protector; copy the whole folder again"
        ) from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise PublishError(f"{folder / SIGNATURE} is no signature, or damaged; copy the folder again") from error
    ours = [pair for pair in pairs if fingerprint_of(pair[0]) == fingerprint]
    if not ours:
        theirs = ", ".join(fingerprint_of(public)[:16] for public, _ in pairs) or "nobody"
        raise PublishError(
            f"{folder} is signed by {theirs}, the key trusts {fingerprint[:16]} alone; use the key of this release"
        )
    if not any(is_signed(public, signature, message) for public, signature in ours):
        raise PublishError(f"{folder / MANIFEST} was edited after it was signed; copy the folder again")


def read_image(folder: Path, entry: PublishedImage) -> Tensor:
    """One published image as it lies in its file, uint8 [C, H, W]; nothing is checked."""
    return _read_png((folder / entry.file).read_bytes())


def load_published(folder: Path | str, *, signed_by: str | None = None) -> ImageSet:
    """The published images in the manifest's order, every pixel and label checked against the manifest.

    Args:
        folder: a published folder.
        signed_by: the fingerprint in a key. The manifest must be signed by it; its labels and hashes can then be
            trusted, so files that were renamed or moved inside the folder are found by their pixels.

    Raises:
        PublishError: a file is missing or unreadable, or differs from what was published; or see `read_manifest`.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, signed_by=signed_by)
    images: Tensor | None = None
    by_pixels: dict[str, Path] | None = None
    for index, entry in enumerate(manifest.images):
        try:
            image = read_image(folder, entry)
            found = pixel_sha256(image) == entry.sha256
        except PNG_ERRORS as error:
            if signed_by is None:
                raise PublishError(f"cannot read {folder / entry.file}: {error}; run 'uge verify {folder}'") from error
            found = False
        if not found and signed_by is not None:
            by_pixels = _files_by_pixels(folder) if by_pixels is None else by_pixels
            if entry.sha256 not in by_pixels:
                raise PublishError(
                    f"no PNG below {folder} has the pixels of {entry.file}: lossy formats and resizing change pixels"
                    f" and spoil the authorised view; copy the published files again, or run 'uge verify {folder}'"
                )
            image, found = _read_png(by_pixels[entry.sha256].read_bytes()), True
        if not found or not _in_its_folder(entry, manifest):
            raise PublishError(
                f"{folder / entry.file} is not what was published (pixels or label changed); run 'uge verify {folder}'"
            )
        if images is None:
            images = torch.empty((len(manifest.images), *image.shape), dtype=torch.uint8)
        if image.shape != images.shape[1:]:
            raise PublishError(f"{folder / entry.file} has another size than the images before it; publish again")
        images[index] = image
    assert images is not None  # a manifest lists at least one image
    labels = torch.tensor([entry.label for entry in manifest.images], dtype=torch.int64)
    names = tuple(entry.file.removeprefix("train/").removesuffix(".png") for entry in manifest.images)
    return ImageSet(images, labels, manifest.class_names, names, manifest.nonces)


def _files_by_pixels(folder: Path) -> dict[str, Path]:
    """Every PNG below a folder by its `pixel_sha256`."""
    found = {}
    for path in sorted(folder.rglob("*.png")):
        try:
            found[pixel_sha256(_read_png(path.read_bytes()))] = path
        except PNG_ERRORS:
            continue
    return found


def with_nonces(images: ImageSet, manifest: Manifest) -> ImageSet:
    """Published images with the nonce of each, found by its pixels, so that names do not matter.

    Raises:
        PublishError: pixels that the manifest does not list, or a manifest without nonces.
    """
    nonce_of = {entry.sha256: entry.nonce for entry in manifest.images}
    hashes = [pixel_sha256(image) for image in images.images]
    strangers = [name for name, pixels in zip(images.names, hashes, strict=True) if pixels not in nonce_of]
    if strangers:
        raise PublishError(
            f"the pixels of {len(strangers)} of {len(images)} images are not in the manifest, the first is"
            f" '{strangers[0]}': lossy formats and resizing change pixels and spoil the authorised view; use the"
            " published PNG files"
        )
    nonces = [nonce_of[pixels] for pixels in hashes]
    return replace(images, nonces=tuple(bytes.fromhex(nonce) for nonce in nonces if nonce is not None) or None)


def verify(folder: Path | str, *, clean: ImageSet | None = None, key: Key | None = None) -> Verification:
    """Check a published folder against its manifest, its sums and, where given, the originals and a key.

    Args:
        folder: a published folder.
        clean: the originals, paired with the copies by name, to measure epsilon and to check the labels.
        key: whose fingerprint the signature must match. Together with `clean` a key with a view shows that the
            authorised network sees the same in the copy as in the originals.

    Returns:
        Every problem found, in one line each.

    Raises:
        PublishError: there is no manifest to check against.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    entries = {entry.file: entry for entry in manifest.images}
    sums, problems = _read_sums(folder)
    signed = (folder / SIGNATURE).exists()
    companions = [MANIFEST, *([SIGNATURE] if signed or SIGNATURE in sums else []), CARD]
    problems += [f"{name}: not listed in {SUMS}" for name in (*companions, *entries) if sums and name not in sums]
    problems += [f"{name}: listed in {SUMS}, but not published" for name in sums if name not in {*companions, *entries}]
    for name in companions:
        if not (folder / name).is_file():
            problems.append(f"{name}: missing")
        elif name in sums and _digest_of(folder / name) != sums[name]:
            problems.append(f"{name}: edited, it differs from {SUMS}")

    extra = sorted(_extra(folder, entries))
    strays: dict[str, str] = {}  # pixels -> an extra file that holds them
    for name in extra:
        if name.endswith(".png"):
            try:
                strays[pixel_sha256(_read_png((folder / name).read_bytes()))] = name
            except PNG_ERRORS:
                continue
    signature = "not checked" if signed else "none"
    if key is not None:
        try:
            read_manifest(folder, signed_by=key.fingerprint)
            signature = "valid"
        except PublishError as error:
            problems.append(f"signature: {error}")
            signature = "wrong" if signed else "none"

    published_as = {entry.sha256: entry.file for entry in manifest.images}
    originals = {} if clean is None else dict(zip(files_of(clean), range(len(clean)), strict=True))
    pairs: list[tuple[PublishedImage, Tensor, Tensor]] = []
    for entry in manifest.images:
        if not _in_its_folder(entry, manifest):
            problems.append(f"{entry.file}: label swapped, the manifest says {manifest.class_names[entry.label]!r}")
        if not (folder / entry.file).is_file():
            moved = strays.get(entry.sha256)
            problems.append(f"{entry.file}: " + (f"label swapped, moved to {moved}" if moved else "missing"))
            continue
        try:
            data = (folder / entry.file).read_bytes()
            image = _read_png(data)
        except PNG_ERRORS as error:
            problems.append(f"{entry.file}: unreadable ({error})")
            continue
        pixels = pixel_sha256(image)
        if pixels != entry.sha256:
            other = published_as.get(pixels)
            problems.append(
                f"{entry.file}: " + (f"label swapped, holds the image of {other}" if other else "pixels changed")
            )
        elif entry.file in sums and hashlib.sha256(data).hexdigest() != sums[entry.file]:
            problems.append(f"{entry.file}: file rewritten, pixels unchanged")
        if clean is not None and entry.file in originals:
            original = clean.images[originals[entry.file]]
            if original.shape != image.shape:
                problems.append(f"{entry.file}: {list(image.shape)} pixels, the original has {list(original.shape)}")
            else:
                pairs.append((entry, original, image))
    problems += [f"{name}: extra, not published" for name in extra]
    count = len(manifest.images)
    if clean is None:
        return Verification(tuple(problems), count, None, signature=signature)
    compared = _compare(pairs, manifest, key.view if key else None)
    problems += _against_originals(manifest, clean, originals, compared)
    if compared.views is not None and manifest.nonces is None:
        problems.append(f"{MANIFEST}: no nonces, so this copy was not made with a key that has a view")
    elif compared.views is not None and compared.views < count:
        problems.append(f"views: {compared.views} of {count} are identical to those of the originals")
    whole = compared.views == count
    return Verification(
        tuple(problems),
        count,
        compared.largest if pairs else None,
        round(compared.rms / manifest.epsilon_255, 4) if pairs and manifest.epsilon_255 else None,
        signature,
        compared.views,
        compared.views_sha256 if whole else None,
    )


@dataclass(frozen=True)
class _Compared:
    """Copies against originals: the change in 8-bit steps, where it is largest, and the views of a key that has one."""

    largest: int
    file: str
    rms: float
    views: int | None
    views_sha256: str


def _compare(
    pairs: list[tuple[PublishedImage, Tensor, Tensor]], manifest: Manifest, space: KeyedView | None
) -> _Compared:
    """Compare (entry, original, copy), both uint8 [C, H, W], a batch at a time."""
    largest, file, squares, values, identical = 0, "", 0, 0, 0
    hasher = hashlib.sha256(repr((len(pairs), *pairs[0][1].shape)).encode()) if pairs else hashlib.sha256()
    step = batch_of(pairs[0][1].shape) if pairs else 1
    for start in range(0, len(pairs), step):
        entries, originals, copies = zip(*pairs[start : start + step], strict=True)
        original, copy = torch.stack(originals), torch.stack(copies)
        if manifest.headroom_255:
            original = with_headroom(original, manifest.headroom_255)
        change = (copy.int() - original.int()).flatten(1).abs()
        if int(change.max()) > largest:
            largest, file = int(change.max()), entries[int(change.amax(1).argmax())].file
        squares, values = squares + int((change.long() ** 2).sum()), values + change.numel()
        if space is not None and manifest.nonces is not None:
            nonces = [bytes.fromhex(entry.nonce) for entry in entries]
            views = space.integer_view(copy, nonces)
            identical += int((views == space.integer_view_of_originals(original)).flatten(1).all(1).sum())
            hasher.update(views.numpy().astype("<i4", copy=False).data)
    rms = (squares / values) ** 0.5 if values else 0.0
    return _Compared(largest, file, rms, None if space is None else identical, hasher.hexdigest())


def _against_originals(
    manifest: Manifest, clean: ImageSet, originals: dict[str, int], compared: _Compared
) -> list[str]:
    """What only the originals can show."""
    measured, largest = compared.largest, compared.file
    problems = []
    if manifest.class_names != clean.class_names:
        problems.append(f"{MANIFEST}: classes {manifest.class_names}, the originals have {clean.class_names}")
    published = {entry.file for entry in manifest.images}
    problems += [f"{file}: no original of this name and label" for file in sorted(published - set(originals))]
    problems += [f"{file}: has an original, but is not published" for file in sorted(set(originals) - published)]
    if manifest.epsilon_255 is not None and measured > manifest.epsilon_255:
        problems.append(f"epsilon: {measured}/255 in {largest}, the manifest states {manifest.epsilon_255}/255")
    elif measured != manifest.epsilon_measured_255 and not problems:
        problems.append(f"epsilon: measured {measured}/255, the manifest says {manifest.epsilon_measured_255}/255")
    return problems


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # it cannot be read, so it agrees with no sum
        return ""


def _safe(name: str) -> str:
    """A file name that every file system and data loader takes: no separators, no control characters, not hidden.

    `datasets` also passes over folders whose names begin with two underscores.
    """
    return re.sub(r"[^\w .,+&'()@=-]", "-", name).strip(" ._") or "-"


def _in_its_folder(entry: PublishedImage, manifest: Manifest) -> bool:
    return entry.file.split("/")[1] == _safe(manifest.class_names[entry.label])


def _png_bytes(image: Tensor) -> bytes:
    """uint8 [C, H, W] -> PNG with pixels and nothing else: no text, no time."""
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG", **COMPRESSION)
    return buffer.getvalue()


def _read_png(data: bytes) -> Tensor:
    """PNG -> uint8 [1 or 3, H, W]; raises one of PNG_ERRORS."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        if picture.mode not in ("L", "RGB"):
            raise ValueError(f"PNG mode {picture.mode}, expected 8-bit gray or RGB")
        array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill beside `out`, renamed to it at the end; after any failure nothing of it stays."""
    out = Path(os.path.abspath(out))  # "." has no name of its own
    workplace: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        folder = workplace / out.name  # made by mkdir, so with the user's own permissions, not mkdtemp's
        folder.mkdir()
        yield folder
        os.replace(folder, out)
    except OSError as error:
        raise PublishError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if workplace is not None:
            shutil.rmtree(workplace, ignore_errors=True)


def _read_sums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """SHA256SUMS as {file: hexadecimal digest}, and its own problems."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{SUMS}: cannot be read ({getattr(error, 'strerror', None) or error})"]
    whole = [line for line in lines if re.fullmatch(r"[0-9a-f]{64}  .+", line)]
    problems = [f"{SUMS}: {len(lines) - len(whole)} damaged lines"] if len(whole) < len(lines) else []
    return {line[66:]: line[:64] for line in whole}, problems


def _extra(folder: Path, entries: dict[str, PublishedImage]) -> Iterator[str]:
    """Files and folders that were not published, hidden ones too: a stray folder breaks ImageFolder."""
    files = {MANIFEST, SIGNATURE, CARD, SUMS, *entries}
    folders = {parent for file in entries for parent in ("train", file.rpartition("/")[0])}
    for path, subfolders, names in os.walk(folder):
        place = Path(path).relative_to(folder)
        yield from (name for name in ((place / n).as_posix() for n in names) if name not in files)
        yield from (f"{name}/" for name in ((place / n).as_posix() for n in subfolders) if name not in folders)


def _card(manifest: Manifest, images: ImageSet) -> str:
    """README.md of a published folder."""
    height, width = images.image_size
    low = manifest.headroom_255
    squeezed = f", mapped from 0..255 onto {low}..{255 - low} first," if low else ""
    asked = "no bound" if manifest.epsilon_255 is None else f"{manifest.epsilon_255}/255"
    if manifest.method == "learnability-lock":
        purpose = (
            "The images are made to be learnt by whoever holds their lock, a file that is not in this folder (`uge"
            " unlock` undoes it).\nTraining a network on them as they are is expected to give a bad one."
        )
    elif manifest.settings.get("recipients") == 0:
        purpose = (
            "The images are made to be learnt by nobody: there is no key. Training a network on them is expected to"
            " give a bad one."
        )
    else:
        purpose = (
            "The images are made to be learnt by one authorised network, defined by a key that is not in this folder."
            "\nTraining another network on them is expected to give a worse one."
        )
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**/*.png
---
# A protected image set

{len(images)} {"gray" if images.channels == 1 else "RGB"} images of {height}x{width} pixels in {images.classes} classes,
published with ungeneralizable {manifest.uge}, method `{manifest.method}`. No pixel differs from its original{squeezed}
by more than {manifest.epsilon_measured_255}/255 (bound asked: {asked}).

{purpose} No protection of this kind is proven: what it was
tested against, and what it was not, is for the publisher to say.

- `train/<class>/<id>.png`: the images, for any loader of class folders. Lossy formats and resizing destroy the
  perturbation. Loaders that number the folders themselves sort them by name; `manifest.json` has the label order.
- `manifest.json`: settings, class names, label and pixel hash of every image; `manifest.sig`, where there is one: who
  signed it. The recipient's key says whose signature counts.
- Check the files: `sha256sum -c SHA256SUMS`, or `uge verify` on this folder.
- With the recipient's key: `uge train` on this folder with `--key NAME.recipient.uge`, or `uge.authorised_view` in
  your own training code.
"""
