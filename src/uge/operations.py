"""Operations of image augmentation, each with a strength of its own for every image of a batch.

Own code, because a library's versions draw from torch's global generator, or one strength for a whole batch. The set is
that of Cubuk et al., RandAugment, CVPR Workshops 2020, and the wider ranges those of Müller & Hutter, TrivialAugment,
ICCV 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Strength = Tensor  # float32 [B]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the shares of red, green and blue


def warp(x: Tensor, rows: Tensor) -> Tensor:
    """Resample each image by its own affine map; x [B, C, H, W], rows [B, 2, 3] in pixels about the centre.

    What comes in from outside is zero.
    """
    height, width = x.shape[2:]
    sides = torch.tensor([width / 2, height / 2, 1.0])
    scaled = rows * sides / sides[:2, None]  # to the coordinates of grid_sample, in which a half side is 1
    grid = F.affine_grid(scaled.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _affine(images: Tensor, **entries: Tensor) -> Tensor:
    """`warp` by the identity but for the entries given: xx, xy, x, yx, yy, y, each [B]."""
    one, zero = torch.ones(len(images)), torch.zeros(len(images))
    default = {"xx": one, "xy": zero, "x": zero, "yx": zero, "yy": one, "y": zero}
    return warp(images, torch.stack([*(default | entries).values()], dim=1).view(-1, 2, 3))


def rotate(x: Tensor, degrees: Strength) -> Tensor:
    """Rotation about the centre."""
    angle = degrees * math.pi / 180
    return _affine(x, xx=angle.cos(), xy=-angle.sin(), yx=angle.sin(), yy=angle.cos())


def _blend(x: Tensor, other: Tensor, factor: Strength) -> Tensor:
    """other + factor (x - other), within [0, 1]: factor 1 leaves x, 0 gives other, more goes beyond."""
    return (other + factor.view(-1, 1, 1, 1).to(x.device) * (x - other)).clamp(0, 1)


def luma(x: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, [B, 1, H, W]; of gray images what they are."""
    if x.shape[1] == 1:
        return x
    return (x * torch.tensor(LUMA, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def brightness(x: Tensor, factor: Strength) -> Tensor:
    """Away from black, or towards it."""
    return _blend(x, torch.zeros_like(x), factor)


def contrast(x: Tensor, factor: Strength) -> Tensor:
    """Away from the mean luma, or towards it."""
    return _blend(x, luma(x).mean((1, 2, 3), keepdim=True), factor)


def colour(x: Tensor, factor: Strength) -> Tensor:
    """Away from the gray image, or towards it; gray images stay."""
    return _blend(x, luma(x), factor)


def jitter(x: Tensor, light: Strength, difference: Strength, saturation: Strength) -> Tensor:
    """Brightness, then contrast, then colour."""
    return colour(contrast(brightness(x, light), difference), saturation)


def sharpness(x: Tensor, factor: Strength) -> Tensor:
    """Away from the smoothed image, or towards it."""
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=x.device) / 13  # Pillow's SMOOTH
    smooth = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1])
    return _blend(x, smooth, factor)


def posterise(x: Tensor, bits: Strength) -> Tensor:
    """Keep the leading bits of each value, as Pillow does."""
    step = 2.0 ** (8 - bits.round()).view(-1, 1, 1, 1).to(x.device)
    return ((x * 255 + 1e-3) / step).floor() * step / 255


def solarise(x: Tensor, threshold: Strength) -> Tensor:
    """Invert what is not below the threshold."""
    return torch.where(x >= threshold.view(-1, 1, 1, 1).to(x.device), 1 - x, x)


def auto_contrast(x: Tensor, _: Strength) -> Tensor:
    """Stretch each channel to the whole range."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp_min(1 / 255), x).clamp(0, 1)


def equalise(x: Tensor, _: Strength) -> Tensor:
    """Histogram equalisation of each channel in 256 bins: the lowest value goes to 0, the highest to 1."""
    value = (x * 255).round().long().flatten(2)
    count = torch.zeros(*x.shape[:2], 256, device=x.device).scatter_add_(2, value, torch.ones_like(value).float())
    below = count.cumsum(2) - count.gather(2, value.amin(2, keepdim=True))  # without the lowest value itself
    total = below[:, :, -1:]
    table = torch.where(total > 0, (below / total.clamp_min(1)).clamp(0, 1), torch.arange(256, device=x.device) / 255)
    return table.gather(2, value).view_as(x)


def blur(x: Tensor, sigma: Strength) -> Tensor:
    """Gaussian blur, sigma in pixels, at most 2."""
    place = torch.arange(-4.0, 5.0)
    kernel = torch.exp(-(place**2) / (2 * sigma.clamp_min(0.05)[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(x.device).repeat_interleave(x.shape[1], dim=0)  # [B * C, 9]
    flat = F.pad(x, (4, 4, 4, 4), mode="replicate").flatten(0, 1)[None]
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=flat.shape[1])
    return F.conv2d(flat, kernel[:, None, None, :], groups=flat.shape[1])[0].view_as(x)


@dataclass(frozen=True)
class Operation:
    """An operation and its strengths.

    Attributes:
        apply: (x [B, C, H, W] in [0, 1], strength [B]) -> the same shape.
        rest: the strength that does nothing.
        narrow: how far from there RandAugment goes at most.
        wide: how far TrivialAugment goes.
        both: whether both ways.
    """

    apply: Callable[[Tensor, Strength], Tensor]
    rest: float = 0
    narrow: float = 0
    wide: float = 0
    both: bool = False


OPERATIONS = (
    Operation(lambda x, _: x),
    Operation(auto_contrast),
    Operation(equalise),
    Operation(rotate, 0, 30, 135, True),
    Operation(solarise, 1, -1, -1),
    Operation(colour, 1, 0.9, 0.99, True),
    Operation(posterise, 8, -4, -6),
    Operation(contrast, 1, 0.9, 0.99, True),
    Operation(brightness, 1, 0.9, 0.99, True),
    Operation(sharpness, 1, 0.9, 0.99, True),
    Operation(lambda x, share: _affine(x, xy=share), 0, 0.3, 0.99, True),
    Operation(lambda x, share: _affine(x, yx=share), 0, 0.3, 0.99, True),
    Operation(lambda x, share: _affine(x, x=share * x.shape[3]), 0, 0.45, 0.5, True),
    Operation(lambda x, share: _affine(x, y=share * x.shape[2]), 0, 0.45, 0.5, True),
)


def apply_drawn(x: Tensor, level: Tensor, wide: bool, generator: torch.Generator) -> Tensor:
    """One operation drawn for each image of x, float32 [B, C, H, W] in [0, 1].

    `level` float32 [B] in [0, 1] says how far towards the end of the operation's range: TrivialAugment's wide one, or
    RandAugment's. The generator draws operation and sign.
    """
    chosen = torch.randint(len(OPERATIONS), (len(x),), generator=generator)
    sign = 2.0 * torch.randint(2, (len(x),), generator=generator) - 1
    out = x.clone()
    for index, operation in enumerate(OPERATIONS):
        members = (chosen == index).nonzero().flatten()
        if len(members):
            reach = level[members] * (operation.wide if wide else operation.narrow)
            strength = operation.rest + reach * (sign[members] if operation.both else 1)
            place = members.to(x.device)
            out[place] = operation.apply(x[place], strength)
    return out


def sometimes(share: float, x: Tensor, changed: Tensor, generator: torch.Generator) -> Tensor:
    """A random share of the images [B, C, H, W] changed."""
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator) < share
    return torch.where(chosen.to(x.device), changed, x)
