"""What a copy says about itself, and who signed it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from uge.copy.files import LONGEST_NAME, MOST_PIXELS, read_bytes, read_text, safe_name
from uge.errors import PublishError, told_as
from uge.keys import Key
from uge.keys.signature import fingerprint_of, is_signed
from uge.outside import parse_json, typed

FORMAT_VERSION = 3
MANIFEST, SIGNATURE, CARD, SUMS = "manifest.json", "manifest.sig", "README.md", "SHA256SUMS"
ATTRIBUTES = ".gitattributes"
MOST_NOTED = 300  # letters of a name that a manifest may tell
MOST_SIGNERS = 1000

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # SHA-256
Name = Annotated[str, Meta(max_length=MOST_NOTED)]
Side = Annotated[int, Meta(ge=1)]  # pixels
Value = Annotated[int, Meta(ge=0, le=255)]
Setting = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """One entry of the manifest.

    Attributes:
        file: "train/<class>/<id>.png".
        label: position in the manifest's class names.
        sha256: `pixel_sha256` of the published pixels.
        size: (height, width) in pixels, where it is not that of the manifest's shape.
    """

    file: str
    label: Annotated[int, Meta(ge=0)]
    sha256: Digest
    size: tuple[Side, Side] | None = None

    def __post_init__(self) -> None:
        _check_size(self.size or (1, 1))

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Shard:
    """Images that lie together, in a manifest of many.

    Attributes:
        file: "train/<number>.json", which has their entries.
        sha256: of that file, with lines that end in LF.
        images: how many.
    """

    file: Annotated[str, Meta(pattern=r"\Atrain/[0-9]{5,9}\.json\Z")]
    sha256: Digest
    images: int

    @property
    def data(self) -> str:
        """The shard itself, "train/<number>.parquet"."""
        return self.file.removesuffix("json") + "parquet"


@dataclass(frozen=True)
class Manifest:
    """What a published folder says about itself. Its signature covers all that a reader of the folder goes by.

    Attributes:
        method: the protection's name.
        settings: its resolved settings.
        epsilon_255: the bound asked for, max |published - original| in steps of 1/255; None where the method has none.
        epsilon_measured_255: the largest change found in the published 8-bit images.
        class_names: one name a class, in label order.
        shape: (channels, height, width) of every image; of photographs, at which networks see those of other sizes.
        images: one entry an image, in the order of the data.
        shards: of many images: which files have the entries, in that order; none where the manifest itself has them.
        card_sha256: of README.md, with lines that end in LF.
        uge: version of the program that wrote it.
        format_version: of the manifest.
    """

    method: Name
    settings: dict[str, Setting | list[Setting]]
    epsilon_255: Value | None
    epsilon_measured_255: Value
    class_names: tuple[Name, ...]
    shape: tuple[int, Side, Side]
    images: tuple[PublishedImage, ...]
    card_sha256: Digest
    uge: Name
    shards: tuple[Shard, ...] = ()
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_size(self.shape[1:])
        if self.shape[0] not in (1, 3):
            raise ValueError(f"{self.shape[0]} channels")

    @property
    def told(self) -> dict[str, Any]:
        """What hackers who have read our pages go by: settings, method and bound."""
        bound = {} if self.epsilon_255 is None else {"epsilon_255": self.epsilon_255}
        return self.settings | {"method": self.method} | bound

    @property
    def own_sizes(self) -> bool:
        """Whether images are published at sizes of their own, and seen by networks at one."""
        return any(entry.size for entry in self.images)

    def shape_of(self, entry: PublishedImage) -> tuple[int, int, int]:
        """(channels, height, width) of a published image."""
        return (self.shape[0], *(entry.size or self.shape[1:]))

    @property
    def files(self) -> list[str]:
        """Every file that holds images, or entries of images."""
        if not self.shards:
            return [entry.file for entry in self.images]
        return [file for shard in self.shards for file in (shard.file, shard.data)]

    def resized_to(self, side: int) -> Manifest:
        """The same images, which networks see at side x side pixels, whatever their own size."""
        entries = (replace(entry, size=self.shape_of(entry)[1:]) for entry in self.images)
        return replace(self, shape=(self.shape[0], side, side), images=tuple(entries))

    def in_its_folder(self, entry: PublishedImage) -> bool:
        """Whether an entry's file lies in the folder of its label."""
        return entry.file.split("/")[1] == safe_name(self.class_names[entry.label])

    def json_parts(self) -> Iterator[str]:
        """JSON with one line an image or shard, for people too; in pieces, so that it is never held as one text."""
        listed = "shards" if self.shards else "images"
        facts = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("images", "shards")}
        yield json.dumps(facts, indent=1, sort_keys=True)[:-2] + f',\n "{listed}": [\n'
        entries = [asdict(shard) for shard in self.shards] or (image.to_dict() for image in self.images)
        yield from _lines(f"  {json.dumps(entry)}" for entry in entries)
        yield " ]\n}\n"

    @classmethod
    def from_json(cls, text: bytes, folder: Path) -> Manifest:
        """Read the JSON of the manifest of a folder, where entries of shards lie beside it.

        Raises:
            PublishError: no manifest, of another version, or one whose entries do not make sense.
        """
        where = folder / MANIFEST
        try:
            data = parse_json(text)
            version = data["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise PublishError(f"{where} is no manifest of uge, or damaged; publish again or copy it again") from error
        if version != FORMAT_VERSION:
            told = version if isinstance(version, int) else "of another kind"
            raise PublishError(
                f"{where} has format version {told}, this uge reads {FORMAT_VERSION}; use the uge that wrote it"
            )
        try:
            manifest = cls._of(data, folder)
        except (LookupError, TypeError, ValueError) as error:
            raise PublishError(f"{where} is damaged: {str(error)[:100]}; copy it again") from error
        if not manifest.images:
            raise PublishError(f"{where} lists no image; publish again")
        seen: set[str] = set()
        for image in manifest.images:
            if not _is_file_of_ours(image.file):
                raise PublishError(f"{where}: {image.file[:80]!a} is not train/<class>/<id>.png; copy the folder again")
            if not 0 <= image.label < len(manifest.class_names):
                raise PublishError(f"{where}: label {image.label} of {image.file[:80]} has no class name")
            if image.file.casefold() in seen:
                raise PublishError(f"{where} lists {image.file[:80]} twice; copy the folder again")
            seen.add(image.file.casefold())
        return manifest

    @classmethod
    def _of(cls, data: dict[str, Any], folder: Path) -> Manifest:
        if unknown := set(data) - {each.name for each in fields(cls)}:
            raise ValueError(f"unknown entry {min(unknown)[:40]!a}")
        if shards := data.get("shards"):
            entries = [entry for shard in typed(shards, list[Shard]) for entry in _entries_of(folder, shard)]
            data = data | {"images": entries}
        return typed(data, cls)


def shard_json(entries: Sequence[PublishedImage]) -> bytes:
    """The entries of a shard: JSON with one line an image."""
    lines = _lines(json.dumps(entry.to_dict(), separators=(",", ":")) for entry in entries)
    return ('{"images":[\n' + "".join(lines) + "]}\n").encode()


def _lines(entries: Iterable[str]) -> Iterator[str]:
    """Lines of a JSON list: a comma behind all but the last."""
    for number, entry in enumerate(entries):
        yield (",\n" if number else "") + entry
    yield "\n"


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"a size of {size[0]}x{size[1]} pixels")


def _is_file_of_ours(file: str) -> bool:
    """Whether a name is one that `uge.copy.files.files_of` may have made."""
    parts = file.split("/")
    plain = [*parts[1:2], parts[-1].removesuffix(".png")]
    return (
        (len(parts), parts[0], file[-4:]) == (3, "train", ".png")
        and all(safe_name(part) == part for part in plain)
        and max(len(part.encode()) for part in parts) <= LONGEST_NAME
    )


def read_manifest(folder: Path | str, *, signed_by: str | None = None) -> Manifest:
    """The manifest of a published folder.

    Args:
        folder: a published folder.
        signed_by: the fingerprint in a key; the manifest must carry the signature that goes with it.

    Raises:
        PublishError: there is none, it cannot be read, or it is not signed by that key.
    """
    folder = Path(folder)
    wanted = "" if signed_by is None else "; with a key only what it signed is read: get the whole folder again"
    with told_as(PublishError, f"{folder} is no published folder: cannot read {MANIFEST}", wanted):
        text, _ = read_text(folder / MANIFEST)
    manifest = Manifest.from_json(text, folder)
    if signed_by is not None:
        _check_signature(folder, text, signed_by)
    return manifest


def _entries_of(folder: Path, shard: Shard) -> list[Any]:
    """The entries of a shard, as the manifest binds them.

    Raises:
        PublishError: they cannot be read, or are others.
    """
    file = folder / shard.file
    with told_as(PublishError, f"cannot read {file}", "; get the whole folder again"):
        text, _ = read_text(file)
    if hashlib.sha256(text).hexdigest() != shard.sha256:
        raise PublishError(f"{file} differs from what {MANIFEST} says; get the whole folder again")
    entries = typed(parse_json(text)["images"], list)
    if len(entries) != shard.images:
        raise PublishError(f"{file} lists {len(entries)} images, {MANIFEST} says {shard.images}; get the folder again")
    return entries


def signatures(signers: Sequence[Key], message: bytes) -> bytes:
    """manifest.sig: one Ed25519 signature a signer, each beside the public key that checks it.

    Raises:
        KeyFileError: a signer is a recipient's key.
    """
    pairs = [key.sign(message) for key in signers]
    found = [{"public_key": public.hex(), "signature": signature.hex()} for public, signature in pairs]
    return (json.dumps({"algorithm": "ed25519", "signatures": found}, indent=1) + "\n").encode()


def _check_signature(folder: Path, message: bytes, fingerprint: str) -> None:
    """Refuse a manifest, with lines that end in LF, that manifest.sig does not say the owner of a fingerprint signed.

    The public key in the folder counts only because its hash is the one that the recipient's key names.

    Raises:
        PublishError: not signed, signed by another key, or edited since.
    """
    try:
        data = parse_json(read_bytes(folder / SIGNATURE))
        if data["algorithm"] != "ed25519" or len(data["signatures"]) > MOST_SIGNERS:
            raise ValueError
        pairs = [(bytes.fromhex(s["public_key"]), bytes.fromhex(s["signature"])) for s in data["signatures"]]
    except FileNotFoundError as error:
        raise PublishError(
            f"{folder} has no {SIGNATURE}: it was published without a key, or the file is lost; copy the whole folder"
        ) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PublishError(f"{folder / SIGNATURE} is no signature, or damaged; copy the folder again") from error
    ours = [pair for pair in pairs if fingerprint_of(pair[0]) == fingerprint]
    if not ours:
        theirs = ", ".join(fingerprint_of(public)[:16] for public, _ in pairs[:3]) or "nobody"
        raise PublishError(
            f"{folder} is signed by {theirs}, the key trusts {fingerprint[:16]} alone; use the key of this release"
        )
    if not any(is_signed(public, signature, message) for public, signature in ours):
        raise PublishError(f"{folder / MANIFEST} was edited after it was signed; copy the folder again")
