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

Of the key stream (`uge.keys.keyed_view`):

    key     HKDF(secret, "uge/groups/v1|height|width|channels|p|s|signs|units")
    words   [0] and [1] place the grid, [2 + u] belongs to unit u
    sort    by (cell of u, top bits of its word, u): the index in the low bits leaves no ties
    sign    lowest bit of the word, for "random"
    nonce   its lowest bit says that all channels are equal: such an image has tied units whatever the layout says
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from uge.errors import ConfigError
from uge.keys.keyed_view import KeyedView

SIGNS = ("balanced", "random")
UNITS = ("mixed", "tied")
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

    def least(self, values: Tensor, most: float) -> Tensor:
        """The least value of each group at its slot, [N, U] -> [N, U]; `most`, which none exceeds, elsewhere."""
        return torch.full_like(values, most).scatter_reduce(1, self.group, values, "amin")

    def sizes(self) -> Tensor:
        """The number of units of each group at its slot, int32 [N, U]; 0 elsewhere."""
        return torch.zeros_like(self.units).scatter(1, self.group, self.units)


@dataclass(frozen=True)
class NullSpace(KeyedView):
    """The secret of a null-space key, and its public layout.

    Attributes:
        group_size: s, units a group.
        cell: p, side of a cell in pixels.
        signs: "balanced" leaves the mean of every cell untouched, "random" leaves no direction untouched.
        channels: "mixed" (a unit is a value) or "tied" (a unit is a pixel: the perturbation is gray).
    """

    kind: ClassVar[str] = "null-space"
    group_size: int = 6
    cell: int = 8
    signs: str = "balanced"
    channels: str = "mixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.group_size <= 64:
            raise ConfigError(f"group size {self.group_size} is not in 2..64: a group of one would lose its value")
        if not 2 <= self.cell <= 64:
            raise ConfigError(f"cell {self.cell} is not in 2..64 pixels")
        if self.signs not in SIGNS or self.channels not in UNITS:
            raise ConfigError(
                f"signs '{self.signs}' and channels '{self.channels}': choose from {', '.join(SIGNS)}"
                f" and {', '.join(UNITS)}"
            )

    @property
    def layout(self) -> dict[str, Any]:
        return {
            "group_size": self.group_size,
            "cell": self.cell,
            "signs": self.signs,
            "channels": self.channels,
        }

    @property
    def layout_text(self) -> str:
        return f"{self.cell}|{self.group_size}|{self.signs}|{self.channels}"

    @property
    def always_tied(self) -> bool:
        return self.channels == "tied"

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
        # the K different grids, an image of each, and which one an image has
        offsets, example, grid = np.unique(offset, axis=0, return_index=True, return_inverse=True)
        grid = grid.reshape(-1)

        cell_of_row = (np.arange(height) + offsets[:, :1]) // self.cell  # [K, H]
        cell_of_column = (np.arange(width) + offsets[:, 1:]) // self.cell  # [K, W]
        columns = (width + self.cell - 2) // self.cell + 1  # the most cells a row can have
        cell = cell_of_row[:, :, None] * columns + cell_of_column[:, None, :]  # [K, H, W]
        if int(cell.max(initial=0)) >= 1 << CELL_BITS:
            raise ConfigError(f"{height}x{width} pixels have too many cells of {self.cell}; use larger cells")
        cell = np.broadcast_to(cell[:, None], (len(cell), per_pixel, height, width)).reshape(-1, count)

        index_bits = max(1, (count - 1).bit_length())
        middle = (words[:, 2:] >> (1 + CELL_BITS + index_bits) << index_bits).astype(np.int64)
        order = np.sort((cell << (63 - CELL_BITS) | np.arange(count))[grid] | middle, axis=1)
        unit = torch.from_numpy(order & ((1 << index_bits) - 1))  # [N, U]: slot -> unit

        # the cells follow each other, so what a slot is depends on the grid alone: [K, U]
        row, column = np.divmod(order[example] >> (63 - CELL_BITS), columns)
        top, bottom = _clipped(row, offsets[:, :1], self.cell, height)
        left, right = _clipped(column, offsets[:, 1:], self.cell, width)
        start = per_pixel * (top * width + (bottom - top) * left)  # first slot of the cell
        inside = per_pixel * (bottom - top) * (right - left)  # units in the cell
        place = np.arange(count) - start  # of the slot within its cell
        groups = np.maximum(1, inside // self.group_size)
        small, larger = np.divmod(inside, groups)  # `larger` groups of small + 1 units, then groups of `small`
        early = place < larger * (small + 1)
        units = np.where(early, small + 1, small)
        position = np.where(early, place % (small + 1), (place - larger * (small + 1)) % small)
        first = np.arange(count) - position

        if self.signs == "balanced":
            sign = (1 - 2 * (position & 1)).astype(np.int32)[grid]
        else:
            sign = 1 - 2 * (np.take_along_axis(words[:, 2:], unit.numpy(), axis=1) & 1).astype(np.int32)
        if tied is False or channels == 1:
            sign[(units == 1)[grid]] = 0  # a group of one value would lose it

        def by_unit(at_slots: np.ndarray) -> Tensor:
            values = torch.from_numpy(at_slots)
            return torch.empty_like(values).scatter_(1, unit, values)

        return Groups(by_unit(first[grid]), by_unit(sign), by_unit(units.astype(np.int32)[grid]), tied)

    def mean_projection(self, nonces: Sequence[bytes], shape: Sequence[int]) -> Tensor:
        """The mean over nonces of the projection onto the null space, sum_g sigma_g sigma_g' / n_g.

        What no key hides: a direction v with v' E[P_N] v near zero is clean in every copy, on average, and a fixed
        linear map of the copies reads it. For units of single values; tied ones leave all differences of channels
        clean as well.

        Args:
            nonces: as many as the mean needs, as `groups` takes them.
            shape: (channels, height, width).

        Returns:
            float64 [D, D] for D values an image, in the order channel, row, column.
        """
        size = math.prod(shape)
        total = torch.zeros(size * size, dtype=torch.float64)
        for begin in range(0, len(nonces), 500):
            groups = self.groups(nonces[begin : begin + 500], shape, tied=False)
            members = groups.group.argsort(dim=1, stable=True)  # a group's name is the place of its first unit in there
            own = torch.arange(size).expand_as(members)
            for k in range(int(groups.units.max())):
                inside = k < groups.units
                other = members.gather(1, (groups.group + k).clamp(max=size - 1))
                product = (groups.sign * groups.sign.gather(1, other)).double() / groups.units
                total.index_add_(0, (own * size + other)[inside], product[inside])
        return total.view(size, size) / len(nonces)

    def integer_view(self, copies: Tensor, nonces: Sequence[bytes]) -> Tensor:
        return self._view(copies, nonces)[0]

    def integer_view_of_originals(self, images: Tensor) -> Tensor:
        return self.integer_view(images, self.nonces(images))

    def view(self, copies: Tensor, nonces: Sequence[bytes]) -> Tensor:
        """V = W / n_g."""
        weighted, values = self._view(copies, nonces)
        return weighted.float() / values

    def view_of_originals(self, images: Tensor) -> Tensor:
        return self.view(images, self.nonces(images))

    def view_of_others(self, images: Tensor) -> Tensor:
        return self.view(images, self.nonces(images, "view"))

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


def _clipped(cells: np.ndarray, offset: np.ndarray, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one pixel of cells along one axis of `size` pixels."""
    begin = cells * side - offset
    return np.maximum(begin, 0), np.minimum(begin + side, size)
