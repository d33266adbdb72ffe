"""Textures: fine gray patterns, one a class, laid in cells at random places. Ours; nothing is trained.

Class k has a tile: a checkerboard of pixels whose sign is turned over in squares of 2 x 2 as chance has it,

    t_k(i, j) = (-1)^(i + j) q_k(floor(i / 2), floor(j / 2)),   q_k in {-1, +1}^(c/2 x c/2),   i, j mod c

and in every cell of c x c pixels of every image the tile is rolled by a place (u, v) of its own, uniform on 0..c-1:

    delta(x, y) = epsilon t_k(x + u, y + v)

Natural images have next to nothing at these frequencies, so a network finds the texture before anything else, in gray
as in colour. Its mean over places is zero and it repeats nowhere, so that a linear classifier reads nothing, and
nothing is gained by projection or by averaging cells. What takes away fine detail takes the texture with it: blur,
median, JPEG.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from uge.errors import ConfigError
from uge.protect.baseline import Baseline, BaselineConfig, add_within_linf, check_epsilon
from uge.runtime import generator_for


@dataclass(frozen=True)
class TextureConfig(BaselineConfig):
    """Settings of textures.

    Attributes:
        epsilon_255: size of the change in 8-bit steps, and L_inf bound.
        cell: side of a cell in pixels, even.
    """

    bound = "L_inf: epsilon_255"
    epsilon_255: int = 8
    cell: int = 8

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon_255)
        if self.cell < 4 or self.cell % 2:
            raise ConfigError(f"cell must be an even number of pixels, 4 at least, got {self.cell}")


class TextureProtection(Baseline[TextureConfig]):
    """Adds the texture of each image's class."""

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        size = self.clean.image_size
        rows, columns = cells_of(size, self.config.cell)
        places = torch.stack(
            [
                torch.randint(self.config.cell, (rows, columns, 2), generator=generator_for(self.seed, "texture", n))
                for n in numbers
            ]
        )
        delta = self.config.epsilon_255 * laid(self._tiles[labels], places, size)
        return add_within_linf(images, delta, self.config.epsilon_255)

    @cached_property
    def _tiles(self) -> Tensor:
        return tiles(self.clean.classes, self.config.cell, generator_for(self.seed, "texture tiles"))


def tiles(classes: int, cell: int, generator: torch.Generator) -> Tensor:
    """t, float32 [K, cell, cell] of -1 and 1; no two are the same texture at another place.

    Raises:
        ConfigError: there are more classes than textures.
    """
    place = torch.arange(cell)
    checkerboard = 1.0 - 2 * ((place[:, None] + place) % 2)
    found: list[Tensor] = []
    known: set[bytes] = set()
    for _ in range(100 * classes):
        squares = 2.0 * torch.randint(2, (cell // 2, cell // 2), generator=generator) - 1
        tile = squares.repeat_interleave(2, 0).repeat_interleave(2, 1) * checkerboard
        rolled = {tile.roll((i, j), (0, 1)).numpy().tobytes() for i in range(cell) for j in range(cell)}
        if not rolled & known:
            known |= rolled
            found.append(tile)
            if len(found) == classes:
                return torch.stack(found)
    raise ConfigError(f"cells of {cell} pixels have not enough textures for {classes} classes; use larger cells")


def cells_of(size: tuple[int, int], cell: int) -> tuple[int, int]:
    """Cells down and across an image; those at the lower and right edge are cut."""
    return -(-size[0] // cell), -(-size[1] // cell)


def laid(tile: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """The tiles of some images, rolled by a place of its own in each cell.

    Args:
        tile: one an image, float32 [B, c, c].
        places: int64 [B, rows, columns, 2] in 0..c-1.
        size: height and width of the images.

    Returns:
        float32 [B, 1, H, W].
    """
    cell = tile.shape[1]
    down = torch.arange(size[0]) // cell, torch.arange(size[0]) % cell  # cell of each row, and row within it
    right = torch.arange(size[1]) // cell, torch.arange(size[1]) % cell
    place = places[:, down[0]][:, :, right[0]]  # [B, H, W, 2]
    row = (place[..., 0] + down[1][:, None]) % cell
    column = (place[..., 1] + right[1]) % cell
    image = torch.arange(len(tile))[:, None, None]
    return tile[image, row, column][:, None]


PRESETS = {"default": TextureConfig()}
