"""The sealed key: a secret that opens letters. It needs neither network nor data.

Its file is JSON: format version, kind, role, secret, fingerprint, the protector's signing key, and a SHA-256 over all
of that as it stands in the file.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import Tensor, nn

from uge.data.images import ImageSet
from uge.errors import KeyFileError
from uge.keys.key import Key, check_facts, checksum, damaged, no_key, signer_in
from uge.keys.letter import even, open_letters
from uge.keys.signature import new_signer
from uge.networks import NetworkSpec, fresh_network
from uge.outside import parse_json
from uge.training import Recipe, recommended_recipe

BEGINNING = b'{\n "format_version": '


@dataclass(frozen=True, eq=False, kw_only=True)
class SealedKey(Key):
    """Opens the letter of every copy made for it: the recipient has 2 floor(x / 2) and trains what he likes.

    Attributes:
        secret: 32 bytes from the operating system.

    Example:
        >>> key = uge.SealedKey.draw()
        >>> key.opens, len(key.secret)
        (True, 32)
    """

    kind: ClassVar[str] = "sealed"
    opens: ClassVar[bool] = True
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.secret) != 32:
            raise KeyFileError(f"the secret of a sealed key has 32 bytes, got {len(self.secret)}")

    @classmethod
    def draw(cls) -> Self:
        """A new key, all of it from the operating system."""
        return cls(secret=secrets.token_bytes(32), **new_signer())

    def to_bytes(self, role: str) -> bytes:
        facts = self.facts(role, secret=self.secret.hex())
        return json.dumps(facts | {"sha256": checksum(facts)}, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: str, role: str | None = None) -> Self:
        """Read what `to_bytes` made; `where` names it in messages, `role` is the one that will do.

        Raises:
            KeyFileError: no key, damaged, of another format version, or of the other role.
        """
        try:
            facts = parse_json(data)
        except ValueError as error:
            raise damaged(where) if data.startswith(BEGINNING) else no_key(where) from error
        check_facts(facts, where, cls.kind, role)
        if facts.pop("sha256", None) != checksum(facts):
            raise damaged(where)
        try:
            return cls(secret=bytes.fromhex(facts["secret"]), **signer_in(facts))
        except (KeyError, TypeError, ValueError, KeyFileError) as error:
            raise KeyFileError(f"key {where} holds what this version cannot use: {error}") from error

    def check_fits(self, images: ImageSet) -> None:
        """A sealed key fits any images; whether these carry its letters shows when they are opened."""

    def open_each(self, copies: Tensor) -> tuple[Tensor, Tensor]:
        return open_letters(copies, self.secret)

    def seen(self, images: Tensor) -> Tensor:
        return even(images)

    def spec(self, like: ImageSet, network: str) -> NetworkSpec:
        return NetworkSpec.of(network, like)

    def module(self, like: ImageSet, network: str, seed: int) -> nn.Module:
        return fresh_network(network, like, seed)

    def recipe(self, network: str, epochs: int) -> Recipe:
        return recommended_recipe(network, epochs)
