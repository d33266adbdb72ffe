"""What a key can put before the authorised network: a view that undoes the perturbation, or is blind to it.

Everything keyed comes from AES-256 in counter mode under HKDF-SHA256 of the secret, one 96-bit nonce an image:

    key     HKDF(secret, "uge/PURPOSE/v1|height|width|channels|LAYOUT")
    words   64-bit little-endian words of the key stream
    nonce   first 96 bits of HMAC-SHA256(HKDF(secret, "uge/nonce/v1|purpose"), shape and pixels); its lowest bit says
            that all channels are equal

tests/keys/vectors.json fixes these bytes for the years to come.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from uge.errors import ConfigError

NONCE_BYTES = 12


@dataclass(frozen=True)
class KeyedView(ABC):
    """The secret of an authorised view, and its public layout.

    An image has one view, whether it is computed from the original or from its published copy: the same integers.

    Attributes:
        secret: 32 bytes from the operating system.
    """

    kind: ClassVar[str]
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise ConfigError(f"the secret of a {self.kind} key has 32 bytes, got {len(self.secret)}")

    @classmethod
    def draw(cls, **layout: Any) -> Self:
        """A fresh secret from the operating system; `layout` as in the attributes."""
        return cls(secrets.token_bytes(32), **layout)

    @property
    @abstractmethod
    def layout(self) -> dict[str, Any]:
        """Everything but the secret."""

    @property
    @abstractmethod
    def layout_text(self) -> str:
        """The layout as it enters the key stream."""

    @property
    def always_tied(self) -> bool:
        """Whether the channels of every image move together, and not those of gray images alone."""
        return False

    @abstractmethod
    def integer_view(self, copies: Tensor, nonces: Sequence[bytes]) -> Tensor:
        """The view of published copies before its scale: int32 [N, C, H, W].

        Args:
            copies: uint8 [N, C, H, W].
            nonces: those that they were published with.
        """

    @abstractmethod
    def integer_view_of_originals(self, images: Tensor) -> Tensor:
        """The view of originals: the same integers as that of their copies."""

    @abstractmethod
    def view(self, copies: Tensor, nonces: Sequence[bytes]) -> Tensor:
        """The view of published copies, float32 [N, C, H, W] on the scale 0..255, which it may leave."""

    @abstractmethod
    def view_of_originals(self, images: Tensor) -> Tensor:
        """The view of originals: the same floats as that of their copies."""

    @abstractmethod
    def view_of_others(self, images: Tensor) -> Tensor:
        """The view of images that are not published, such as test images."""

    def nonces(self, images: Tensor, purpose: str = "publish") -> list[bytes]:
        """One nonce an image: equal pixels share it, and it tells nothing about them without the secret.

        Args:
            images: uint8 [N, C, H, W].
            purpose: images that are never published have nonces of another purpose.

        Returns:
            N times 12 bytes.
        """
        key = derive(self.secret, f"uge/nonce/v1|{purpose}")
        shape = ",".join(map(str, images.shape[1:])).encode() + b"|"
        equal = channels_equal(images).tolist()
        pixels = images.contiguous().numpy()
        nonces = []
        for image, gray in zip(pixels, equal, strict=True):
            digest = bytearray(hmac.digest(key, shape + image.tobytes(), "sha256")[:NONCE_BYTES])
            digest[0] = digest[0] & 0xFE | gray
            nonces.append(bytes(digest))
        return nonces

    def kinds(self, nonces: Sequence[bytes]) -> list[tuple[bool, Tensor]]:
        """Images by their channels: (whether these move together, int64 positions), leaving out what is empty."""
        tied = self.always_tied | torch.tensor([bool(nonce[0] & 1) for nonce in nonces], dtype=torch.bool)
        return [(kind, (tied == kind).nonzero()[:, 0]) for kind in (False, True) if bool((tied == kind).any())]

    def key_stream(self, purpose: str, nonces: Sequence[bytes], shape: Sequence[int], count: int) -> np.ndarray:
        """AES-256-CTR: `count` 64-bit words an image, uint64 [N, count].

        The counter blocks of all images are enciphered in one call: nonce (96 bits), then the block's number (32 bits,
        big-endian).
        """
        channels, height, width = shape
        key = derive(self.secret, f"uge/{purpose}/v1|{height}|{width}|{channels}|{self.layout_text}")
        blocks = -(-count // 2)
        counters = np.empty((len(nonces), blocks, 4), dtype=">u4")
        counters[:, :, :3] = np.frombuffer(b"".join(nonces), dtype=">u4").reshape(-1, 1, 3)
        counters[:, :, 3] = np.arange(blocks)
        cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # each block occurs once: this is counter mode
        stream = cipher.update(counters.tobytes()) + cipher.finalize()
        return np.frombuffer(stream, dtype="<u8").reshape(len(nonces), 2 * blocks)[:, :count]


def with_headroom(images: Tensor, epsilon_255: int) -> Tensor:
    """Map 0..255 onto epsilon..255-epsilon, so that every value can move both ways; uint8 [N, C, H, W] -> uint8.

    Values at 0 or 255 hold a balanced group still. Exactness then refers to the mapped image.
    """
    room = 255 - 2 * epsilon_255
    table = (epsilon_255 + (torch.arange(256) * room + 127) // 255).to(torch.uint8).to(images.device)
    return torch.cat([table[part.int()] for part in images.split(1000)]) if len(images) else images


def needs_headroom(images: Tensor) -> bool:
    """Whether more than a tenth of the values of uint8 images are black or white, which can move one way at most."""
    return sum(int(((part == 0) | (part == 255)).sum()) for part in images.split(1000)) > images.numel() / 10


def channels_equal(images: Tensor) -> Tensor:
    """bool [N]: images of several channels that are all equal."""
    if images.shape[1] == 1:
        return torch.zeros(len(images), dtype=torch.bool)
    return torch.cat([(part == part[:, :1]).flatten(1).all(1) for part in images.split(1000)])


def views_digest(views: Tensor) -> str:
    """SHA-256 over integer views int32 [N, C, H, W]: two parties compare it to see that they hold the same."""
    hasher = hashlib.sha256(repr(tuple(views.shape)).encode())
    hasher.update(views.contiguous().numpy().astype("<i4", copy=False).data)
    return hasher.hexdigest()


def derive(secret: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869): 32 bytes for one purpose."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)
