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
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from uge.errors import ConfigError

PURPOSE = "uge/letter/1"
LEVELS = 5  # values of a field or a node: level in -2..2
MOST_LEVEL = LEVELS // 2
NODE_STEP = 4  # pixels between colour nodes
MOST_STEP = 4  # pixels between nodes of the gray field, at most: coarser than the colour nodes it says too little
NONCE, TAG, HEADER = 12, 16, 1  # bytes
DIGITS, WORD_BITS = 27, 63  # 5**27 < 2**63
TOP = 127  # of h
CHUNK = 2**18  # values that are worked on at a time, so that memory has a bound


@dataclass(frozen=True)
class Layout:
    """What a letter says and where, decided by shape and epsilon alone.

    Attributes:
        shape: (channels, height, width) of the letter; one channel for images whose channels are all equal.
        field_step: pixels between nodes of the gray field; 1 where the letter has room for every pixel.
        node_step: pixels between colour nodes; 0 where there are none.
        reach: m in half steps (d moves h), what level 2 stands for; field and nodes together go no further.
    """

    shape: tuple[int, int, int]
    field_step: int
    node_step: int
    reach: int

    @property
    def field_shape(self) -> tuple[int, int]:
        """(rows, columns) of the field."""
        return -(-self.shape[1] // self.field_step), -(-self.shape[2] // self.field_step)

    @property
    def node_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the colour nodes, zeros where there are none."""
        if not self.node_step:
            return 0, 0, 0
        return self.shape[0], -(-self.shape[1] // self.node_step), -(-self.shape[2] // self.node_step)

    @property
    def digits(self) -> int:
        """How many levels the letter tells."""
        return math.prod(self.field_shape) + math.prod(self.node_shape)


def derive(secret: bytes, purpose: str, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869): `length` bytes for one purpose."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose.encode()).derive(secret)


def even(images: Tensor) -> Tensor:
    """2 floor(x / 2): what the recipient's network sees of images that were never published; uint8, same shape."""
    return images & 0xFE


def channels_equal(images: Tensor) -> Tensor:
    """bool [B]: images [B, C, H, W] of several channels that are all equal, whose letter is that of one channel."""
    if images.shape[1] == 1:
        return torch.zeros(len(images), dtype=torch.bool)
    parts = images.split(1000)  # as a whole the comparison would take as much memory as the images
    return torch.cat([(part == part[:, :1]).flatten(1).all(1) for part in parts])


@lru_cache(maxsize=1024)
def layout_of(shape: tuple[int, int, int], epsilon_255: int) -> Layout:
    """How a letter for images of this shape is laid out.

    Field and colour nodes reach m = floor((epsilon - 1) / 2); there are no nodes where there is one channel, or m is 1.

    Args:
        shape: (channels, height, width) of the letter; (1, H, W) for images whose channels are all equal.
        epsilon_255: L_inf bound of the copy in 8-bit steps.

    Raises:
        ConfigError: epsilon is outside 3..255, or images of this shape have no room for a letter.
    """
    if not 3 <= epsilon_255 <= 255:
        raise ConfigError(f"epsilon {epsilon_255} of a sealed copy is outside 3..255 (8-bit steps)")
    layout = _layout(shape, epsilon_255)
    if layout is None:
        channels, height, width = shape
        side = next(n for n in range(1, 100) if _layout((channels, n, n), epsilon_255))
        colours = "one channel (or equal ones)" if channels == 1 else f"{channels} channels"
        raise ConfigError(
            f"images of {height}x{width} pixels and {colours} have too few bits for a sealed letter; enlarge them,"
            f" {side}x{side} is enough (--image-size {side})"
        )
    return layout


def _layout(shape: tuple[int, int, int], epsilon_255: int) -> Layout | None:
    """The layout of the finest field that fits; None where none does."""
    channels, height, width = shape
    most = (epsilon_255 - 1) // 2
    colour = channels > 1 and most > 1
    for step in range(1, MOST_STEP + 1):
        layout = Layout((channels, height, width), step, NODE_STEP if colour else 0, most)
        if 8 * HEADER + _bits(layout.digits) <= 8 * _plain_bytes(shape):
            return layout
    return None


def _plain_bytes(shape: tuple[int, int, int]) -> int:
    """Bytes of the plaintext, which fills the whole bytes of the bit plane; below 1 where there is no room."""
    return math.prod(shape) // 8 - NONCE - TAG


def _bits(digits: int) -> int:
    """Bits that so many digits take."""
    words, rest = divmod(digits, DIGITS)
    return words * WORD_BITS + int(LEVELS**rest - 1).bit_length()


def shift_of(field: Tensor, nodes: Tensor, layout: Layout) -> Tensor:
    """d = clamp(enlarged(field) + enlarged(nodes), -m, m), each rounded to whole half steps.

    Args:
        field: levels -2..2, int8 [B, rows, columns] as in `layout.field_shape`.
        nodes: levels -2..2, int8 [B, C, rows, columns] as in `layout.node_shape`.
        layout: as `layout_of` gives it.

    Returns:
        int16 [B, C, H, W].
    """
    _check_levels(field, nodes, layout)
    return torch.from_numpy(_shift(field.numpy(), nodes.numpy(), layout))


def bounded(images: Tensor, field: Tensor, nodes: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Levels drawn toward zero, where they must be, so that 0 <= h + d <= 127 at every value.

    First the nodes: none may exceed the room of any value that it reaches. Then the field: none may exceed what the
    nodes leave at any pixel that it reaches, in any of its channels.

    Args:
        images: x, uint8 [B, C, H, W]; C may be more than the letter's where all channels are equal.
        field: levels as for `shift_of`.
        nodes: the same.
        layout: as `layout_of` gives it.

    Returns:
        Field and nodes, int8. Bounded once more they stay as they are.
    """
    _check_levels(field, nodes, layout)
    h = (images[:, : layout.shape[0]] >> 1).numpy()
    drawn_in = _bounded(h, field.numpy(), nodes.numpy(), layout)
    return torch.from_numpy(drawn_in[0]), torch.from_numpy(drawn_in[1])


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
            if not len(rows):
                continue
            part, opened[rows] = _open(copies[rows][:, :channels].numpy(), cipher)
            views[rows] = part.expand(-1, copies.shape[1], -1, -1)
    return views, opened


def _chunks(images: Tensor) -> list[tuple[int, int]]:
    count = max(1, CHUNK // max(1, math.prod(images.shape[1:])))
    return [(begin, min(begin + count, len(images))) for begin in range(0, len(images), count)]


def _check_levels(field: Tensor, nodes: Tensor, layout: Layout) -> None:
    for levels, shape in ((field, layout.field_shape), (nodes, layout.node_shape)):
        got = levels.dtype, levels.shape[1:]
        assert got == (torch.int8, shape), f"expected int8 levels [B, *{shape}], got {got}"
        assert not levels.numel() or int(levels.abs().max()) <= MOST_LEVEL, "a level is outside -2..2"


def _values(reach: int) -> tuple[int, int]:
    """What the levels 1 and 2 stand for: reach l / 2, halves rounded away from zero."""
    return (reach + 1) // 2, reach


def _enlarged(levels: np.ndarray, reach: int, step: int, size: tuple[int, int]) -> np.ndarray:
    """Levels int8 [..., rows, columns] -> their values, enlarged bilinearly, int16 [..., H, W].

    Nodes stand in the middle of their step x step pixels; beyond the outermost the value stays. Weights are whole
    numbers that sum to (2 step)^2; the sum is rounded once, halves up.
    """
    first, second = _values(reach)
    values = np.array([-second, -first, 0, first, second], dtype=np.int16)[levels + MOST_LEVEL]
    if step == 1:
        return values
    for axis, length in ((-2, size[0]), (-1, size[1])):
        doubled = 2 * np.arange(length) + 1 - step  # the pixel's place between nodes, in parts of 2 step
        weight = (doubled % (2 * step)).astype(np.int16)
        left = doubled // (2 * step)
        last = values.shape[axis] - 1
        weight = weight[:, None] if axis == -2 else weight
        values = values.take(left.clip(0, last), axis) * (2 * step - weight) + (
            values.take((left + 1).clip(0, last), axis) * weight
        )
    return (values + 2 * step * step) // (4 * step * step)


def _shift(field: np.ndarray, nodes: np.ndarray, layout: Layout) -> np.ndarray:
    size = layout.shape[1:]
    shift = _enlarged(field, layout.reach, layout.field_step, size)[:, None]
    if layout.node_step:
        shift = shift + _enlarged(nodes, layout.reach, layout.node_step, size)
        return np.clip(shift, -layout.reach, layout.reach)
    return np.repeat(shift, layout.shape[0], axis=1)


def _bounded(h: np.ndarray, field: np.ndarray, nodes: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    down = h.astype(np.int16)  # room below and above, [B, C, H, W]
    up = TOP - down
    if layout.node_step:
        nodes = _within(nodes, layout.reach, layout.node_step, down, up)
        part = _enlarged(nodes, layout.reach, layout.node_step, layout.shape[1:])
        # Where there is room for all of m the clamp keeps to it, whatever the field adds.
        down, up = (np.where(room >= layout.reach, TOP, room + sign * part) for room, sign in ((down, 1), (up, -1)))
    field = _within(field, layout.reach, layout.field_step, down.min(1), up.min(1))
    return field, nodes


def _within(levels: np.ndarray, reach: int, step: int, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Levels whose values stay within the least room of the pixels that they reach."""
    least, most = (
        sum((_least(room, step) >= value).astype(np.int8) for value in _values(reach)) for room in (down, up)
    )
    return np.clip(levels, np.negative(least), most)


def _least(room: np.ndarray, step: int) -> np.ndarray:
    """The least room of the pixels that each node reaches: those less than `step` from its middle, on either axis."""
    if step == 1:
        return room
    for axis in (-2, -1):
        nodes = -(-room.shape[axis] // step)
        around = [(0, 0)] * room.ndim
        around[axis] = (step // 2, (nodes + 1) * step - room.shape[axis])
        padded = np.moveaxis(np.pad(room, around, constant_values=TOP + TOP), axis, 0)
        reached = [padded[place : place + step * nodes : step] for place in range(2 * step - step % 2)]
        room = np.moveaxis(np.minimum.reduce(reached), 0, axis)
    return room


def _seal(images: Tensor, field: Tensor, nodes: Tensor, secret: bytes, epsilon_255: int, noise: np.ndarray) -> Tensor:
    """`seal` with its nonces, the first 12 of 13 bytes an image, and its left-over bits, the upper ones of the last."""
    equal = channels_equal(images)
    gray = bool(equal.any())
    assert bool(equal.all()) == gray or not len(images), "images of equal channels want a batch of their own"
    letter_shape = (1 if gray else images.shape[1], images.shape[2], images.shape[3])
    layout = layout_of(letter_shape, epsilon_255)
    _check_levels(field, nodes, layout)
    cipher = AESGCM(derive(secret, PURPOSE))
    copies = torch.empty_like(images)
    for begin, end in _chunks(images):
        h = (images[begin:end, : letter_shape[0]] >> 1).numpy()
        levels = _bounded(h, field[begin:end].numpy(), nodes[begin:end].numpy(), layout)
        moved = h + _shift(*levels, layout)
        assert moved.min() >= 0 and moved.max() <= TOP
        carrier = moved.astype(np.uint8)
        plain = _packed(epsilon_255, np.concatenate([part.reshape(len(h), -1) for part in levels], axis=1), layout)
        bits = _letters(carrier, plain, cipher, noise[begin:end])
        copies[begin:end] = torch.from_numpy(carrier << 1 | bits)  # one channel goes to all where they are equal
        assert int((copies[begin:end].short() - images[begin:end]).abs().max()) <= epsilon_255
    assert gray or not bool(channels_equal(copies).any())  # less likely than 2^-150: it would be read as gray
    return copies


def _letters(carrier: np.ndarray, plain: np.ndarray, cipher: AESGCM, noise: np.ndarray) -> np.ndarray:
    """b of a batch: uint8 [B, C, H, W] of 0 and 1.

    Args:
        carrier: h + d, uint8 [B, C, H, W].
        plain: plaintexts, uint8 [B, bytes].
        cipher: the key's.
        noise: nonces and left-over bits, uint8 [B, 13].
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
    values, size = math.prod(shape), _plain_bytes(shape)
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
    field = digits[:, :fields].reshape(len(digits), *layout.field_shape)
    nodes = digits[:, fields:].reshape(len(digits), *layout.node_shape)
    h = carrier - _shift(field, nodes, layout)
    sound &= ((h >= 0) & (h <= TOP)).all((1, 2, 3))
    return np.where(sound[:, None, None, None], h << 1, 0).astype(np.uint8), sound


def _packed(epsilon_255: int, levels: np.ndarray, layout: Layout) -> np.ndarray:
    """Levels int8 [B, digits] -> plaintexts, uint8 [B, bytes]."""
    digits = (levels + MOST_LEVEL).astype(np.uint8)
    count = len(digits)
    words = layout.digits // DIGITS
    bits = np.zeros((count, 8 * _plain_bytes(layout.shape)), dtype=np.uint8)
    bits[:, : 8 * HEADER] = np.unpackbits(np.array([epsilon_255], dtype=np.uint8))
    full = _as_bits(digits[:, : words * DIGITS].reshape(count, words, DIGITS))[:, :, -WORD_BITS:]
    begin, end = 8 * HEADER + words * WORD_BITS, 8 * HEADER + _bits(layout.digits)
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
    begin, end = 8 * HEADER + words * WORD_BITS, 8 * HEADER + _bits(layout.digits)
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
