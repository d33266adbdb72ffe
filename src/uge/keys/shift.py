"""The shift: levels at nodes, what they stand for at every value, and what an image leaves room for; integers alone.

docs/letters.md proves each line; `uge.keys.letter` seals what is told here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from uge.errors import ConfigError

LEVELS = 5  # values of a field or a node: level in -2..2
MOST_LEVEL = LEVELS // 2
NODE_STEP = 4  # pixels between colour nodes
MOST_STEP = 4  # pixels between nodes of the gray field, at most: coarser than the colour nodes it says too little
NONCE, TAG, HEADER = 12, 16, 1  # bytes of a letter
DIGITS, WORD_BITS = 27, 63  # 5**27 < 2**63
TOP = 127  # of h


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
    most = (epsilon_255 - 1) // 2
    node_step = NODE_STEP if shape[0] > 1 and most > 1 else 0
    for step in range(1, MOST_STEP + 1):
        layout = Layout(shape, step, node_step, most)
        if 8 * HEADER + bits_of(layout.digits) <= 8 * plain_bytes(shape):
            return layout
    return None


def plain_bytes(shape: tuple[int, int, int]) -> int:
    """Bytes of the plaintext, which fills the whole bytes of the bit plane; below 1 where there is no room."""
    return math.prod(shape) // 8 - NONCE - TAG


def bits_of(digits: int) -> int:
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
    size = layout.shape[1:]
    shift = _enlarged(field.numpy(), layout.reach, layout.field_step, size)[:, None]
    if not layout.node_step:
        return torch.from_numpy(np.repeat(shift, layout.shape[0], axis=1))
    shift = shift + _enlarged(nodes.numpy(), layout.reach, layout.node_step, size)
    return torch.from_numpy(np.clip(shift, -layout.reach, layout.reach))


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
    down = (images[:, : layout.shape[0]] >> 1).numpy().astype(np.int16)  # room below and above, [B, C, H, W]
    up = TOP - down
    kept_nodes = nodes.numpy()
    if layout.node_step:
        kept_nodes = _within(kept_nodes, layout.reach, layout.node_step, down, up)
        part = _enlarged(kept_nodes, layout.reach, layout.node_step, layout.shape[1:])
        # Where there is room for all of m the clamp keeps to it, whatever the field adds.
        down, up = (np.where(room >= layout.reach, TOP, room + sign * part) for room, sign in ((down, 1), (up, -1)))
    kept_field = _within(field.numpy(), layout.reach, layout.field_step, down.min(1), up.min(1))
    return torch.from_numpy(kept_field), torch.from_numpy(kept_nodes)


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
