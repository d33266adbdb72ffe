"""The letter: what was done to an image, sealed in the lowest bit plane of its copy.

For an 8-bit image x [C, H, W] (docs/letters.md proves each line):

    original   h = floor(x / 2) in 0..127
    shift      d = clamp(enlarged(field) + enlarged(nodes), -m, m), m = floor((epsilon - 1) / 2), integers, and
               0 <= h + d <= 127 everywhere
    letter     b, one bit a value: nonce (96 bits) | AES-256-GCM(plaintext) with its tag (128 bits) | left-over bits
    publish    x_u = 2 (h + d) + b
    view       b = x_u mod 2, opened: d;   V = 2 (floor(x_u / 2) - d) = 2 floor(x / 2)

    plaintext  epsilon (one byte) | digits of field and nodes, base 5, 27 in 63 bits, the last word as short as it may
               be | zeros to the last whole byte of the plane; all of it big-endian, row by row
    key        HKDF-SHA256(secret, "uge/letter/1")
    tied to    "uge/letter/1" | C, H, W (32 bits each) | SHA-256(floor(x_u / 2), one byte a value | left-over bits)

Nonce and left-over bits (up to 7, padded with zeros to a byte where they are hashed) come from the operating system.
An image of equal channels is that of one channel: one letter, in all channels, so that gray stays gray.

Everything is integers; tests/keys/letter_vectors.json fixes the bytes. Reversible data hiding for adversarial examples
is due to Liu et al., Pattern Recognition 2023, arXiv 1811.00189; there the compressed perturbation is hidden in the
image, here the shift in a bit plane that is given up for it.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import struct

import numpy as np
import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from uge.errors import ConfigError
from uge.keys.shift import (
    DIGITS,
    HEADER,
    LEVELS,
    MOST_LEVEL,
    NONCE,
    TOP,
    WORD_BITS,
    Layout,
    bits_of,
    bounded,
    layout_of,
    plain_bytes,
    shift_of,
)

PURPOSE = "uge/letter/1"
CHUNK = 2**18  # values that are worked on at a time, so that memory has a bound


def derive(secret: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869): 32 bytes for one purpose."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)


def even(images: Tensor) -> Tensor:
    """2 floor(x / 2): what the recipient's network sees of images that were never published; uint8, same shape."""
    return images & 0xFE


def channels_equal(images: Tensor) -> Tensor:
    """bool [B]: images [B, C, H, W] of several channels that are all equal, whose letter is that of one channel."""
    if images.shape[1] == 1:
        return torch.zeros(len(images), dtype=torch.bool)
    parts = images.split(1000)  # as a whole the comparison would take as much memory as the images
    return torch.cat([(part == part[:, :1]).flatten(1).all(1) for part in parts])


def seal(images: Tensor, field: Tensor, nodes: Tensor, secret: bytes, epsilon_255: int) -> Tensor:
    """Copies that carry their own letters: x_u = 2 (h + d) + b.

    Args:
        images: x, uint8 [B, C, H, W]; of a batch all or none have equal channels, for their layouts differ.
        field: levels of the layout for these images, int8 [B, rows, columns]; `bounded` is done here, too.
        nodes: the same, int8 [B, C, rows, columns].
        secret: of the key, 32 bytes.
        epsilon_255: L_inf bound in 8-bit steps.

    Returns:
        uint8 [B, C, H, W], |x_u - x| <= epsilon. Two calls never give the same bits: every letter has a fresh nonce.

    Raises:
        ConfigError: images of this shape have no room for a letter, or epsilon is out of range.
    """
    noise = np.frombuffer(secrets.token_bytes((NONCE + 1) * len(images)), dtype=np.uint8)
    return _seal(images, field, nodes, secret, epsilon_255, noise.reshape(len(images), NONCE + 1))


def open_letters(copies: Tensor, secret: bytes) -> tuple[Tensor, Tensor]:
    """Read the letters of copies and take back what they tell.

    Args:
        copies: uint8 [B, C, H, W], of any origin.
        secret: of the key, 32 bytes.

    Returns:
        V = 2 floor(x / 2), uint8 [B, C, H, W], and which letters opened, bool [B]. Where one does not (another key, a
        changed pixel, no letter at all) the view is zeros: there is no wrong view.
    """
    views, opened = torch.zeros_like(copies), torch.zeros(len(copies), dtype=torch.bool)
    cipher = AESGCM(derive(secret, PURPOSE))
    for begin, end in _chunks(copies):
        equal = channels_equal(copies[begin:end])
        for channels, kind in ((copies.shape[1], ~equal), (1, equal)):
            rows = begin + kind.nonzero()[:, 0]
            if len(rows):
                part, opened[rows] = _open(copies[rows][:, :channels].numpy(), cipher)
                views[rows] = part.expand(-1, copies.shape[1], -1, -1)
    return views, opened


def _chunks(images: Tensor) -> list[tuple[int, int]]:
    count = max(1, CHUNK // max(1, math.prod(images.shape[1:])))
    return [(begin, min(begin + count, len(images))) for begin in range(0, len(images), count)]


def _seal(images: Tensor, field: Tensor, nodes: Tensor, secret: bytes, epsilon_255: int, noise: np.ndarray) -> Tensor:
    """`seal` with its nonces, the first 12 of 13 bytes an image, and its left-over bits, the upper ones of the last."""
    equal = channels_equal(images)
    gray = bool(equal.any())
    assert bool(equal.all()) == gray or not len(images), "images of equal channels want a batch of their own"
    letter_shape = (1 if gray else images.shape[1], images.shape[2], images.shape[3])
    layout = layout_of(letter_shape, epsilon_255)
    cipher = AESGCM(derive(secret, PURPOSE))
    copies = torch.empty_like(images)
    for begin, end in _chunks(images):
        levels = bounded(images[begin:end], field[begin:end], nodes[begin:end], layout)
        moved = (images[begin:end, : letter_shape[0]] >> 1) + shift_of(*levels, layout)
        assert moved.min() >= 0 and moved.max() <= TOP
        carrier = moved.to(torch.uint8).numpy()
        plain = _packed(epsilon_255, torch.cat([part.flatten(1) for part in levels], dim=1).numpy(), layout)
        bits = _letters(carrier, plain, cipher, noise[begin:end])
        copies[begin:end] = torch.from_numpy(carrier << 1 | bits)  # one channel goes to all where they are equal
        assert int((copies[begin:end].short() - images[begin:end]).abs().max()) <= epsilon_255
    assert gray or not bool(channels_equal(copies).any())  # less likely than 2^-150: it would be read as gray
    return copies


def _letters(carrier: np.ndarray, plain: np.ndarray, cipher: AESGCM, noise: np.ndarray) -> np.ndarray:
    """b of a batch, uint8 [B, C, H, W] of 0 and 1, as the carrier h + d.

    Plaintexts are uint8 [B, bytes], nonces and left-over bits (`noise`) uint8 [B, 13].
    """
    values = math.prod(carrier.shape[1:])
    whole, left = divmod(values, 8)
    noise = noise.copy()
    noise[:, NONCE] &= (0xFF00 >> left) & 0xFF  # as many bits as are left over; the rest of the byte is zero
    plane = np.empty((len(carrier), whole + 1), dtype=np.uint8)
    plane[:, whole] = noise[:, NONCE]
    for i in range(len(carrier)):
        nonce = noise[i, :NONCE].tobytes()
        sealed = nonce + cipher.encrypt(nonce, plain[i].tobytes(), _tied_to(carrier[i], plane[i, whole:], left))
        plane[i, :whole] = np.frombuffer(sealed, dtype=np.uint8)
    return np.unpackbits(plane, axis=1, count=values).reshape(carrier.shape)


def _tied_to(carrier: np.ndarray, rest: np.ndarray, left: int) -> bytes:
    """The data that a letter is bound to: version, shape, and the hash of everything in the copy but the letter."""
    hasher = hashlib.sha256(carrier.tobytes())
    if left:
        hasher.update(rest.tobytes())
    return PURPOSE.encode() + struct.pack(">3I", *carrier.shape) + hasher.digest()


def _open(copies: np.ndarray, cipher: AESGCM) -> tuple[Tensor, Tensor]:
    """`open_letters` for copies whose letters are of all their channels."""
    shape = copies.shape[1:]
    values, size = math.prod(shape), plain_bytes(shape)
    opened = np.zeros(len(copies), dtype=bool)
    views = np.zeros_like(copies)
    if size < HEADER:
        return torch.from_numpy(views), torch.from_numpy(opened)
    whole, left = divmod(values, 8)
    plane = np.packbits(copies.reshape(len(copies), -1) & 1, axis=1)
    carrier = copies >> 1
    plain = np.zeros((len(copies), size), dtype=np.uint8)
    for i in range(len(copies)):
        sealed, tied_to = plane[i, :whole].tobytes(), _tied_to(carrier[i], plane[i, whole:], left)
        try:
            plain[i] = np.frombuffer(cipher.decrypt(sealed[:NONCE], sealed[NONCE:], tied_to), dtype=np.uint8)
        except InvalidTag:
            continue
        opened[i] = True
    for epsilon in np.unique(plain[opened, 0]).tolist():
        rows = np.flatnonzero(opened & (plain[:, 0] == epsilon))
        views[rows], opened[rows] = _taken_back(carrier[rows], plain[rows], epsilon)
    return torch.from_numpy(views), torch.from_numpy(opened)


def _taken_back(carrier: np.ndarray, plain: np.ndarray, epsilon_255: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of copies whose tags hold, and whether what they tell makes sense: only a holder of the key could lie."""
    try:
        layout = layout_of(carrier.shape[1:], epsilon_255)
    except ConfigError:
        return np.zeros_like(carrier), np.zeros(len(carrier), dtype=bool)
    digits, sound = _unpacked(plain, layout)
    fields = math.prod(layout.field_shape)
    field = torch.from_numpy(digits[:, :fields].reshape(len(digits), *layout.field_shape))
    nodes = torch.from_numpy(digits[:, fields:].reshape(len(digits), *layout.node_shape))
    h = carrier - shift_of(field, nodes, layout).numpy()
    sound &= ((h >= 0) & (h <= TOP)).all((1, 2, 3))
    return np.where(sound[:, None, None, None], h << 1, 0).astype(np.uint8), sound


def _packed(epsilon_255: int, levels: np.ndarray, layout: Layout) -> np.ndarray:
    """Levels int8 [B, digits] -> plaintexts, uint8 [B, bytes]."""
    digits = (levels + MOST_LEVEL).astype(np.uint8)
    count = len(digits)
    words = layout.digits // DIGITS
    bits = np.zeros((count, 8 * plain_bytes(layout.shape)), dtype=np.uint8)
    bits[:, : 8 * HEADER] = np.unpackbits(np.array([epsilon_255], dtype=np.uint8))
    full = _as_bits(digits[:, : words * DIGITS].reshape(count, words, DIGITS))[:, :, -WORD_BITS:]
    begin, end = 8 * HEADER + words * WORD_BITS, 8 * HEADER + bits_of(layout.digits)
    bits[:, 8 * HEADER : begin] = full.reshape(count, -1)
    bits[:, begin:end] = _as_bits(digits[:, words * DIGITS :])[:, 64 - (end - begin) :]
    return np.packbits(bits, axis=1)


def _as_bits(digits: np.ndarray) -> np.ndarray:
    """Numbers in base 5, uint8 [..., digits], as bits [..., 64], both from the top."""
    words = np.zeros(digits.shape[:-1], dtype=np.uint64)
    for place in range(digits.shape[-1]):
        words = words * np.uint64(LEVELS) + digits[..., place]
    return np.unpackbits(words[..., None].astype(">u8").view(np.uint8), axis=-1)


def _unpacked(plain: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Levels int8 [B, digits], and whether the plaintext is exactly what `_packed` makes of them, bool [B]."""
    count = len(plain)
    words, rest = divmod(layout.digits, DIGITS)
    bits = np.unpackbits(plain, axis=1)
    begin, end = 8 * HEADER + words * WORD_BITS, 8 * HEADER + bits_of(layout.digits)
    full, sound = _as_digits(bits[:, 8 * HEADER : begin].reshape(count, words, WORD_BITS), DIGITS)
    last, last_sound = _as_digits(bits[:, begin:end], rest)
    sound = sound.all(1) & last_sound & ~bits[:, end:].any(1)
    digits = np.concatenate([full.reshape(count, -1), last], axis=1)
    return digits.astype(np.int8) - np.int8(MOST_LEVEL), sound


def _as_digits(bits: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as bits [..., at most 63] -> digits in base 5, uint8 [..., count], and whether they have no more."""
    padded = np.zeros((*bits.shape[:-1], 64), dtype=np.uint8)
    padded[..., 64 - bits.shape[-1] :] = bits
    words = np.packbits(padded, axis=-1).view(">u8")[..., 0].astype(np.uint64)
    digits = np.empty((*words.shape, count), dtype=np.uint8)
    for place in reversed(range(count)):
        words, digits[..., place] = np.divmod(words, np.uint64(LEVELS))
    return digits, words == 0
