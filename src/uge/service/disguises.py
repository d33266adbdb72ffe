"""What somebody may make of published images before he asks about them: another draw for every image.

Crops, flips, moves, mixes, filters, operations of augmentation and noise, several of them one after another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uge import operations
from uge.data.images import to_float, to_uint8
from uge.filters import FILTERS, Filter, parse_filter
from uge.operations import sometimes
from uge.training import Shift

NUMBERS = {  # within these a picture stays one
    "blur": (0.4, 2.0),
    "jpeg": (5.0, 95.0),
    "pool": (2.0, 5.0),
    "depth": (2.0, 7.0),
    "median": (3.0, 6.0),
    "low-pass": (0.2, 0.9),
    "wavelet": (2.0, 40.0),
    "high-pass": (0.5, 3.0),
    "local-contrast": (1.0, 4.0),
}
LEAST_AREA = 0.15  # of a crop
LEAST_SHARE = 0.35  # of the published image in a mix
MOST_NOISE = 0.08  # standard deviation
PARTS = 8  # of a batch; each has one filter


def disguised(x: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Images as somebody may send them, mixed with others or not: float32 [B, C, H, W] in [0, 1], all three.

    What comes back has values as 8 bits have them.
    """
    x = sometimes(0.4, x, cropped(x, generator), generator)
    x = sometimes(0.3, x, Shift.draw(len(x), (x.shape[2], x.shape[3]), generator)(x), generator)
    x = sometimes(0.35, x, mixed(x, others, generator), generator)
    x = behind_filters(behind_filters(x, 0.5, generator), 0.15, generator)
    level = torch.rand(len(x), generator=generator)
    x = sometimes(0.3, x, operations.apply_drawn(x, level, True, generator), generator)
    noise = MOST_NOISE * _shares(len(x), generator) * torch.randn(x.shape, generator=generator)
    return to_float(to_uint8(sometimes(0.1, x, x + noise.to(x.device), generator)))


def cropped(x: Tensor, generator: torch.Generator) -> Tensor:
    """A part of each image, enlarged, half of them flipped."""
    count, (height, width) = len(x), x.shape[2:]
    area, stretch = (_between(low, high, count, generator) for low, high in ((LEAST_AREA, 1.0), (-0.3, 0.3)))
    across, down = ((area.sqrt() * (sign * stretch).exp()).clamp(max=1) for sign in (1, -1))
    flip = 1 - 2.0 * torch.randint(2, (count,), generator=generator)
    right, below = (
        _between(-1, 1, count, generator) * (1 - share) * side / 2 for share, side in ((across, width), (down, height))
    )
    zero = torch.zeros(count)
    return operations.warp(x, torch.stack([across * flip, zero, right, zero, down, below], dim=1).view(-1, 2, 3))


def mixed(x: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images averaged with others, half with a box of another, of a random share."""
    share = _between(LEAST_SHARE, 1, len(x), generator).view(-1, 1, 1, 1)
    boxes = (1 - share).sqrt()
    inside = torch.ones(len(x), 1, 1, 1, dtype=torch.bool)
    for axis in (2, 3):
        side = x.shape[axis]
        place = torch.arange(side).view([-1 if each == axis else 1 for each in range(4)])
        first = _shares(len(x), generator) * (1 - boxes) * side
        inside = inside & (place >= first) & (place < first + boxes * side)
    share, inside = share.to(x.device), inside.to(x.device)
    averaged = share * x + (1 - share) * others
    return sometimes(0.5, averaged, torch.where(inside, others, x), generator)


def behind_filters(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A random share of the batch's parts, each behind one filter of `uge.filters`."""
    parts = x.split(math.ceil(len(x) / PARTS))
    chosen = torch.rand(len(parts), generator=generator) < share
    return torch.cat([_filter(generator)(part) if yes else part for part, yes in zip(parts, chosen, strict=True)])


def _filter(generator: torch.Generator) -> Filter:
    names = [name for name in FILTERS if name != "none"]
    name = names[int(torch.randint(len(names), (), generator=generator))]
    if name not in NUMBERS:
        return parse_filter(name)
    return parse_filter(f"{name}:{float(_between(*NUMBERS[name], 1, generator))}")


def _shares(count: int, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), float32 [count, 1, 1, 1]."""
    return torch.rand(count, 1, 1, 1, generator=generator)


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Uniform, float32 [count]."""
    return low + (high - low) * torch.rand(count, generator=generator)
