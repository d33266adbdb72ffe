"""Null-space keys: a network that is blind to the perturbation.

The construction, for one image x of 8-bit values (docs/null-space.md has the proofs):

    cells      p x p pixels on a grid whose offset the key draws for each image; cells at the border are cut
    groups     the key shuffles the units of a cell and cuts them into groups of s or s+1; a unit is one value
               ("mixed") or one pixel with all its channels ("tied")
    signs      sigma_g in {-1, +1}, alternating within the shuffled group ("balanced") or drawn one by one ("random")
    publish    x_u,g = x_g + sigma_g * z_g         z_g an integer, |z_g| <= epsilon, inside 0..255
    view       W(x)_g = n_g * x_g - sigma_g * (sigma_g . x_g),  V = W / n_g         n_g values in group g

sigma_g . x_u,g = sigma_g . x_g + n_g * z_g, so W(x_u) = W(x) as integers, whatever z is: no rounding, no clipping and
no training enters. W is computed in int32 and converted once, so V(x_u) and V(x) are the same floats too.

Everything keyed comes from AES-256 in counter mode under HKDF-SHA256 of the secret, one 96-bit nonce an image:

    key     HKDF(secret, "uge/groups/v1|height|width|channels|p|s|signs|units")
    words   64-bit little-endian words of the key stream: [0] and [1] place the grid, [2 + u] belongs to unit u
    sort    by (cell of u, top bits of its word, u): the index in the low bits leaves no ties
    sign    lowest bit of the word, for "random"
    nonce   first 96 bits of HMAC-SHA256(HKDF(secret, "uge/nonce/v1|purpose"), shape and pixels); its lowest bit says
            that all channels are equal: such an image has tied units whatever the layout says

tests/keys/vectors.json fixes these bytes for the years to come.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from uge.errors import ConfigError

SIGNS = ("balanced", "random")
UNITS = ("mixed", "tied")
NONCE_BYTES = 12
CELL_BITS = 15  # of a 63-bit sorting word; the lowest bits hold the unit's index, the key stream fills the middle


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a batch of images, one entry a unit; a group is named by the slot of its first unit.

    Attributes:
        group: int64 [N, U], the group of each unit.
        sign: int32 [N, U], sigma of each unit; 0 where a cell holds a single value, which stays as it is.
        units: int32 [N, U], the number of units in each unit's group.
        tied: whether a unit is a pixel with all its channels or one value.
    """

    group: Tensor
    sign: Tensor
    units: Tensor
    tied: bool

    def to(self, device: torch.device) -> Groups:
        """The same groups on another device."""
        return Groups(self.group.to(device), self.sign.to(device), self.units.to(device), self.tied)

    def arrange(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, M, U]: the M values of each unit."""
        n, channels, _, _ = images.shape
        return images.reshape(n, channels if self.tied else 1, -1)

    def sums(self, values: Tensor) -> Tensor:
        """sigma_g . x_g at the slot of each group; values [N, M, U] -> [N, U], same dtype, differentiable."""
        signed = values.sum(1, dtype=values.dtype) * self.sign.to(values.dtype)
        return torch.zeros_like(signed).scatter_add(1, self.group, signed)

    def spread(self, at_groups: Tensor) -> Tensor:
        """sigma_g * z_g at each unit; z [N, U] at the slots of the groups -> [N, U]."""
        return self.sign.to(at_groups.dtype) * at_groups.gather(1, self.group)

    def least(self, values: Tensor) -> Tensor:
        """The least value of each group at its slot; [N, U] -> [N, U], where no group begins 0."""
        start = torch.zeros_like(values)
        return start.scatter_reduce(1, self.group, values, "amin", include_self=False)


@dataclass(frozen=True)
class NullSpace:
    """The secret of a null-space key, and its public layout.

    Attributes:
        secret: 32 bytes from the operating system.
        group_size: s, units a group.
        cell: p, side of a cell in pixels.
        signs: "balanced" leaves the mean of every cell untouched, "random" leaves no direction untouched.
        channels: "mixed" (a unit is a value) or "tied" (a unit is a pixel: the perturbation is gray).
    """

    secret: bytes = field(repr=False)
    group_size: int = 6
    cell: int = 8
    signs: str = "balanced"
    channels: str = "mixed"

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise ConfigError(f"a null-space secret has 32 bytes, got {len(self.secret)}")
        if not 2 <= self.group_size <= 64:
            raise ConfigError(f"group size {self.group_size} is not in 2..64: a group of one would lose its value")
        if not 2 <= self.cell <= 64:
            raise ConfigError(f"cell {self.cell} is not in 2..64 pixels")
        if self.signs not in SIGNS or self.channels not in UNITS:
            raise ConfigError(
                f"signs '{self.signs}' and channels '{self.channels}': choose from {', '.join(SIGNS)}"
                f" and {', '.join(UNITS)}"
            )

    @classmethod
    def draw(cls, **layout: Any) -> NullSpace:
        """A fresh secret from the operating system; `layout` as in the attributes."""
        return cls(secrets.token_bytes(32), **layout)

    @property
    def layout(self) -> dict[str, Any]:
        """Everything but the secret."""
        return {
            "group_size": self.group_size,
            "cell": self.cell,
            "signs": self.signs,
            "channels": self.channels,
        }

    def nonces(self, images: Tensor, purpose: str = "publish") -> list[bytes]:
        """One nonce an image: equal pixels share it, and it tells nothing about them without the secret.

        Args:
            images: uint8 [N, C, H, W].
            purpose: images that are never published have nonces of another purpose.

        Returns:
            N times 12 bytes.
        """
        key = _derive(self.secret, f"uge/nonce/v1|{purpose}")
        shape = ",".join(map(str, images.shape[1:])).encode() + b"|"
        equal = _channels_equal(images).tolist()
        pixels = images.contiguous().numpy()
        nonces = []
        for image, gray in zip(pixels, equal, strict=True):
            digest = bytearray(hmac.digest(key, shape + image.tobytes(), "sha256")[:NONCE_BYTES])
            digest[0] = digest[0] & 0xFE | gray
            nonces.append(bytes(digest))
        return nonces

    def groups(self, nonces: Sequence[bytes], shape: Sequence[int], *, tied: bool | None = None) -> Groups:
        """The groups of a batch.

        Args:
            nonces: one an image.
            shape: (channels, height, width).
            tied: whether units are whole pixels; the layout's choice if None.
        """
        channels, height, width = shape
        tied = self.channels == "tied" if tied is None else tied
        per_pixel = 1 if tied else channels
        count = per_pixel * height * width
        words = self.key_stream("groups", nonces, shape, 2 + count)
        offset = ((words[:, :2] >> 32) * self.cell >> 32).astype(np.int64)  # [N, 2] in 0..p-1, by multiplication

        cell_of_row = (np.arange(height) + offset[:, :1]) // self.cell  # [N, H]
        cell_of_column = (np.arange(width) + offset[:, 1:]) // self.cell  # [N, W]
        columns = (width + self.cell - 2) // self.cell + 1  # the most cells a row can have
        cell = cell_of_row[:, :, None] * columns + cell_of_column[:, None, :]  # [N, H, W]
        if int(cell.max(initial=0)) >= 1 << CELL_BITS:
            raise ConfigError(f"{height}x{width} pixels have too many cells of {self.cell}; use larger cells")
        cell = np.broadcast_to(cell[:, None], (len(cell), per_pixel, height, width)).reshape(-1, count)

        index_bits = max(1, (count - 1).bit_length())
        middle = (words[:, 2:] >> (1 + CELL_BITS + index_bits) << index_bits).astype(np.int64)
        order = np.sort(cell << (63 - CELL_BITS) | middle | np.arange(count), axis=1)
        unit = order & ((1 << index_bits) - 1)  # [N, U]: slot -> unit

        row, column = np.divmod(order >> (63 - CELL_BITS), columns)
        top, bottom = _clipped(row, offset[:, :1], self.cell, height)
        left, right = _clipped(column, offset[:, 1:], self.cell, width)
        start = per_pixel * (top * width + (bottom - top) * left)  # first slot of the cell
        inside = per_pixel * (bottom - top) * (right - left)  # units in the cell
        place = np.arange(count) - start  # of the slot within its cell
        groups = np.maximum(1, inside // self.group_size)
        small, larger = np.divmod(inside, groups)  # `larger` groups of small + 1 units, then groups of `small`
        early = place < larger * (small + 1)
        units = np.where(early, small + 1, small)
        position = np.where(early, place % (small + 1), (place - larger * (small + 1)) % small)

        if self.signs == "balanced":
            sign = 1 - 2 * (position & 1)
        else:
            sign = 1 - 2 * (np.take_along_axis(words[:, 2:], unit, axis=1) & 1).astype(np.int64)
        if tied is False or channels == 1:
            sign = np.where(units == 1, 0, sign)  # a group of one value would lose it

        def by_unit(at_slots: np.ndarray, dtype: type[np.generic]) -> Tensor:
            result = np.empty_like(at_slots, dtype=dtype)
            np.put_along_axis(result, unit, at_slots.astype(dtype), axis=1)
            return torch.from_numpy(result)

        first = np.arange(count) - position
        return Groups(by_unit(first, np.int64), by_unit(sign, np.int32), by_unit(units, np.int32), tied)

    def integer_view(self, images: Tensor, nonces: Sequence[bytes]) -> Tensor:
        """W, int32 [N, C, H, W]: the same for an image and for every copy of it inside its null space.

        Args:
            images: uint8 [N, C, H, W].
            nonces: one an image.
        """
        return self._view(images, nonces)[0]

    def view(self, images: Tensor, nonces: Sequence[bytes]) -> Tensor:
        """V = W / n_g, float32 [N, C, H, W] on the scale 0..255, which it may leave.

        Args:
            images: uint8 [N, C, H, W].
            nonces: one an image.
        """
        weighted, values = self._view(images, nonces)
        return weighted.float() / values

    def _view(self, images: Tensor, nonces: Sequence[bytes]) -> tuple[Tensor, Tensor]:
        """W and n_g, both [N, C, H, W]."""
        assert len(images) == len(nonces)
        weighted = torch.empty(images.shape, dtype=torch.int32)
        values = torch.empty(images.shape, dtype=torch.int32)
        for tied, members in self.kinds(nonces):
            part = images[members]
            groups = self.groups([nonces[i] for i in members.tolist()], images.shape[1:], tied=tied)
            x = groups.arrange(part.int())  # [n, M, U]
            size = (groups.units * x.shape[1])[:, None]
            weighted[members] = (size * x - groups.spread(groups.sums(x))[:, None]).view(part.shape)
            values[members] = size.expand_as(x).reshape(part.shape)
        return weighted, values

    def kinds(self, nonces: Sequence[bytes]) -> list[tuple[bool, Tensor]]:
        """Images by their units: (tied, int64 positions), leaving out what is empty."""
        gray = torch.tensor([bool(nonce[0] & 1) for nonce in nonces], dtype=torch.bool)
        tied = gray | (self.channels == "tied")
        return [(kind, (tied == kind).nonzero()[:, 0]) for kind in (False, True) if bool((tied == kind).any())]

    def key_stream(self, purpose: str, nonces: Sequence[bytes], shape: Sequence[int], count: int) -> np.ndarray:
        """AES-256-CTR: `count` 64-bit words an image, uint64 [N, count].

        The counter blocks of all images are enciphered in one call: nonce (96 bits), then the block's number (32 bits,
        big-endian).
        """
        channels, height, width = shape
        layout = f"{self.cell}|{self.group_size}|{self.signs}|{self.channels}"
        key = _derive(self.secret, f"uge/{purpose}/v1|{height}|{width}|{channels}|{layout}")
        blocks = -(-count // 2)
        counters = np.empty((len(nonces), blocks, 4), dtype=">u4")
        counters[:, :, :3] = np.frombuffer(b"".join(nonces), dtype=">u4").reshape(-1, 1, 3)
        counters[:, :, 3] = np.arange(blocks)
        cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # each block occurs once: this is counter mode
        stream = cipher.update(counters.tobytes()) + cipher.finalize()
        return np.frombuffer(stream, dtype="<u8").reshape(len(nonces), 2 * blocks)[:, :count]


def with_headroom(images: Tensor, epsilon_255: int) -> Tensor:
    """Map 0..255 onto epsilon..255-epsilon, so that every group can move; uint8 [N, C, H, W] -> uint8.

    Values at 0 or 255 hold a balanced group still. Exactness then refers to the mapped image.
    """
    room = 255 - 2 * epsilon_255
    return (epsilon_255 + (images.int() * room + 127) // 255).to(torch.uint8)


def needs_headroom(images: Tensor) -> bool:
    """Whether more than a tenth of the values of uint8 images are black or white, which hold their groups still."""
    return sum(int(((part == 0) | (part == 255)).sum()) for part in images.split(1000)) > images.numel() / 10


def _clipped(cells: np.ndarray, offset: np.ndarray, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one pixel of cells along one axis of `size` pixels."""
    begin = cells * side - offset
    return np.maximum(begin, 0), np.minimum(begin + side, size)


def _channels_equal(images: Tensor) -> Tensor:
    """bool [N]: images of several channels that are all equal."""
    if images.shape[1] == 1:
        return torch.zeros(len(images), dtype=torch.bool)
    return (images == images[:, :1]).flatten(1).all(1)


def _derive(secret: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869): 32 bytes for one purpose."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)


def views_digest(views: Tensor) -> str:
    """SHA-256 over integer views int32 [N, C, H, W]: two parties compare it to see that they hold the same."""
    hasher = hashlib.sha256(repr(tuple(views.shape)).encode())
    hasher.update(views.contiguous().numpy().astype("<i4", copy=False).data)
    return hasher.hexdigest()
