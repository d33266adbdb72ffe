"""What every key is: who may learn from a copy, what he sees of it, and who published it.

A key is made once and written to two files (`files.py`). Both hold what opens or defines what the recipient trains, and
the fingerprint of the key that signs what is published. Only the protector's holds the signing key.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet
from uge.errors import KeyFileError, PublishError
from uge.keys import signature
from uge.networks import NetworkSpec
from uge.training import Recipe

FORMAT_VERSION = 4  # of key files
RECIPIENT_NETWORK = "vgg:depth=8,width=16"  # what is trained where nobody names a network


@dataclass(frozen=True, eq=False, kw_only=True)
class Key(ABC):
    """What the recipient gets and nobody else.

    Attributes:
        kind: "sealed" or "initial-weights".
        opens: whether copies made for it carry letters.
        fingerprint: of the key that signs what is published, SHA-256 in hexadecimal.
        signing_key: 32 bytes, the protector's alone; None in what a recipient holds.
    """

    kind: ClassVar[str]
    opens: ClassVar[bool]
    fingerprint: str
    signing_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.signing_key is not None and self.fingerprint != signature.signer_of(self.signing_key):
            raise KeyFileError("the key's fingerprint is not that of its signing key; use the files of one pair")

    @abstractmethod
    def to_bytes(self, role: str) -> bytes:
        """The content of a key file for the "protector" or the "recipient", before it is encrypted.

        Raises:
            KeyFileError: a protector's file is asked for, but the key is a recipient's.
        """

    def facts(self, role: str, **own: Any) -> dict[str, Any]:
        """What stands in the file of this role: what only its kind has, `own`, among what all have.

        Raises:
            KeyFileError: a protector's file is asked for, but the key is a recipient's.
        """
        facts = {"format_version": FORMAT_VERSION, "kind": self.kind, "role": role}
        facts |= own | {"fingerprint": self.fingerprint}
        if role != "protector":
            return facts
        if self.signing_key is None:
            raise KeyFileError("the recipient's key has no signing key, so no protector's file can be made of it")
        return facts | {"signing_key": self.signing_key.hex()}

    def recipients_part(self) -> Self:
        """The key without what signs: all that workers need."""
        return replace(self, signing_key=None)

    def public_facts(self) -> dict[str, Any]:
        """What may be shown of a key: nothing of it is secret, nothing a statistic of an image."""
        return {"kind": self.kind, "fingerprint": self.fingerprint, "format_version": FORMAT_VERSION}

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """The public key that goes with `fingerprint`, and its signature of the message.

        Raises:
            KeyFileError: this is the recipient's part of the key, which cannot sign.
        """
        if self.signing_key is None:
            raise KeyFileError("the recipient's key cannot sign; publish with the protector's (NAME.protector.uge)")
        return signature.sign(self.signing_key, message)

    def digest(self) -> str:
        """SHA-256 that names this key in private records: over all that the recipient holds.

        It does not give the secrets away, but whoever has a key can tell that it is this one.
        """
        return hashlib.sha256(self.to_bytes("recipient")).hexdigest()

    @abstractmethod
    def check_fits(self, images: ImageSet) -> None:
        """Refuse images that the key is not for.

        Raises:
            KeyFileError: what the key expects, and what the images are.
        """

    @abstractmethod
    def open_each(self, copies: Tensor) -> tuple[Tensor, Tensor]:
        """What the recipient's network sees of copies uint8 [N, C, H, W], the same shape; and which open, bool [N].

        Where one does not open stand zeros.
        """

    def opened(self, copies: Tensor) -> Tensor:
        """What the recipient's network sees of copies, uint8 [N, C, H, W] -> the same.

        Raises:
            PublishError: some do not open: how many, and the place of the first.
        """
        views, opened = self.open_each(copies)
        if shut := (~opened).nonzero()[:, 0].tolist():
            raise PublishError(
                f"{len(shut)} of {len(copies)} images do not open with this key, the first is number {shut[0]};"
                " they are of another key, changed, or no sealed copies"
            )
        return views

    @abstractmethod
    def seen(self, images: Tensor) -> Tensor:
        """What the recipient's network sees of images that were never published, uint8 [N, C, H, W] -> the same."""

    @abstractmethod
    def spec(self, like: ImageSet, network: str) -> NetworkSpec:
        """The network that the recipient trains on images like these, with their size, channels and classes.

        He names it as `parse_network` reads it; keys that define a network ignore that.
        """

    @abstractmethod
    def module(self, like: ImageSet, network: str, seed: int) -> nn.Module:
        """That network, untrained: a fresh module at each call, with the normalisation of the images.

        The seed is that of the initial weights, where these are not the key's own.
        """

    @abstractmethod
    def recipe(self, network: str, epochs: int) -> Recipe:
        """How to train it; keys that define a network have a recipe of their own and ignore both."""


def signer_in(facts: dict[str, Any]) -> dict[str, Any]:
    """Fingerprint and signing key, if any, of a key file; raises KeyError, TypeError or ValueError."""
    signing_key = facts.get("signing_key")
    return {"fingerprint": str(facts["fingerprint"]), "signing_key": signing_key and bytes.fromhex(signing_key)}


def check_facts(facts: Any, where: str, kind: str, role: str | None) -> None:
    """Refuse the facts of a key file that this version does not read, or of another kind or role than wanted.

    `where` names the file; without a role either will do.

    Raises:
        KeyFileError: another format version, another kind, or the other role.
    """
    version = facts.get("format_version") if isinstance(facts, dict) else None
    if not isinstance(version, int) or "fingerprint" not in facts:
        raise no_key(where)
    if version != FORMAT_VERSION:
        raise KeyFileError(
            f"key {where} has format version {version}, this uge reads {FORMAT_VERSION}; use the uge that wrote it"
        )
    if facts.get("kind") != kind:
        raise no_key(where)
    if role is not None and facts.get("role") != role:
        raise KeyFileError(f"key {where} is the {facts.get('role')}'s file; this needs the {role}'s (NAME.{role}.uge)")


def checksum(facts: dict[str, Any], weights: dict[str, Tensor] | None = None) -> str:
    """SHA-256 over the facts and over every tensor's name, type, shape and bytes, in one fixed order."""
    hasher = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted((weights or {}).items()):
        hasher.update(repr((name, str(tensor.dtype), list(tensor.shape))).encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def no_key(where: str) -> KeyFileError:
    """The error for a file that is something else, or damaged beyond telling."""
    return KeyFileError(f"{where} is no key of uge, or damaged; expected NAME.protector.uge or NAME.recipient.uge")


def damaged(where: str) -> KeyFileError:
    """The error for a key file whose checksum is wrong."""
    return KeyFileError(f"key {where} is cut short or damaged; copy it again from its source")
