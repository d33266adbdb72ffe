"""What a copy says about itself, and who signed it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from uge.copy.files import LONGEST_NAME, read_png, safe_name
from uge.errors import PublishError
from uge.keys import Key
from uge.keys.signature import fingerprint_of, is_signed

FORMAT_VERSION = 2
MANIFEST, SIGNATURE, CARD, SUMS = "manifest.json", "manifest.sig", "README.md", "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """One entry of the manifest.

    Attributes:
        file: "train/<class>/<id>.png".
        label: position in the manifest's class names.
        sha256: `pixel_sha256` of the published pixels.
    """

    file: str
    label: int
    sha256: str


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

    @property
    def told(self) -> dict[str, Any]:
        """What hackers who have read our pages go by: settings, method and bound."""
        bound = {} if self.epsilon_255 is None else {"epsilon_255": self.epsilon_255}
        return self.settings | {"method": self.method} | bound

    def in_its_folder(self, entry: PublishedImage) -> bool:
        """Whether an entry's file lies in the folder of its label."""
        return entry.file.split("/")[1] == safe_name(self.class_names[entry.label])

    def json_parts(self) -> Iterator[str]:
        """JSON with one line an image, to be read by people too; in pieces, so that it is never held as one text."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "images"}
        yield json.dumps(facts, indent=1, sort_keys=True)[:-2] + ',\n "images": [\n'
        for number, image in enumerate(self.images, start=1):
            yield f"  {json.dumps(asdict(image))}{',' if number < len(self.images) else ''}\n"
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
            images = tuple(PublishedImage(str(i["file"]), int(i["label"]), str(i["sha256"])) for i in data["images"])
            asked = None if data["epsilon_255"] is None else int(data["epsilon_255"])
            whole = {"epsilon_255": asked, "epsilon_measured_255": int(data["epsilon_measured_255"])}
            texts = {name: str(data[name]) for name in ("method", "uge")}
            manifest = cls(**(data | whole | texts | {"class_names": names, "images": images}))
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
        return manifest


def read_manifest(folder: Path | str, *, signed_by: str | None = None) -> Manifest:
    """The manifest of a published folder.

    Args:
        folder: a published folder.
        signed_by: the fingerprint in a key; the manifest must carry the signature that goes with it.

    Raises:
        PublishError: there is none, it cannot be read, or it is not signed by that key.
    """
    folder = Path(folder)
    try:
        data = (folder / MANIFEST).read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        wanted = "" if signed_by is None else "; with a key only what it signed is read: get the whole folder again"
        raise PublishError(f"{folder} is no published folder: cannot read {MANIFEST}: {reason}{wanted}") from error
    manifest = Manifest.from_json(text, str(folder / MANIFEST))
    if signed_by is not None:
        _check_signature(folder, data, signed_by)
    return manifest


def signatures(signers: Sequence[Key], message: bytes) -> bytes:
    """manifest.sig: one Ed25519 signature a signer, each beside the public key that checks it.

    Raises:
        KeyFileError: a signer is a recipient's key.
    """
    pairs = [key.sign(message) for key in signers]
    found = [{"public_key": public.hex(), "signature": signature.hex()} for public, signature in pairs]
    return (json.dumps({"algorithm": "ed25519", "signatures": found}, indent=1) + "\n").encode()


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
    return read_png((folder / entry.file).read_bytes())
