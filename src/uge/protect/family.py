"""The family of filters that sealed copies must survive: what hackers may do first, drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.filters import jpeg
from uge.operations import LUMA, blur, luma


def filtered(x: Tensor, rng: torch.Generator, *, edges: bool = False) -> Tensor:
    """Members of the family of filters, drawn for each image: no list that a hacker could look beside.

    In most cases a random mix of the colours, half of them luma, in the place of all, or taken out of them; in half of
    the cases a blur, a high-pass or a sharpening of random width; in some JPEG of random quality; in half of the cases
    another light: contrast halved to doubled, and up to 0.3 lighter or darker.

    Args:
        x: float32 [B, C, H, W] in [0, 1].
        rng: draws.
        edges: of images that would be blurred or sharpened, two of five are their edges alone, of random width.

    Returns:
        The same shape and range; differentiable in x.
    """
    count = len(x)
    draws = torch.rand(4, generator=rng).tolist()

    def each(least: float = 0.0, most: float = 1.0) -> Tensor:
        return (least + (most - least) * torch.rand(count, generator=rng)).view(-1, 1, 1, 1).to(x.device)

    if x.shape[1] == 3 and draws[0] < 0.6:
        mix = torch.rand(count, 3, generator=rng)
        mix = torch.where(torch.rand(count, 1, generator=rng) < 0.6, torch.tensor(LUMA), mix / mix.sum(1, keepdim=True))
        gray = (x * mix.view(-1, 3, 1, 1).to(x.device)).sum(1, keepdim=True)
        share = torch.where(each() < 0.6, 1.0, each())
        without = x - share * (gray - gray.mean((2, 3), keepdim=True))
        x = torch.where(each() < 0.15, without, x + share * (gray - x)).clamp(0, 1)
    if draws[1] < 0.5:
        low = blur(x, each(0.4, 1.8).flatten().cpu())
        kind, gain = each(0, 5 if edges else 3).floor(), each(1, 3)
        detail = gain * (x - low)
        x = torch.where(kind == 0, low, torch.where(kind == 1, 0.5 + detail, x + detail))
        if edges:
            x = torch.where(kind >= 3, gain * steepness(torch.where(each() < 0.5, low, luma(low))), x)
        x = x.clamp(0, 1)
    if draws[2] < 0.3:
        x = jpeg(x, float(10 + 60 * torch.rand((), generator=rng)))
    if draws[3] < 0.5:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (mean + each(-0.3, 0.3) + 2 ** each(-1, 1) * (x - mean)).clamp(0, 1)
    return x


def steepness(x: Tensor) -> Tensor:
    """How steep every channel is: the length of its gradient by central differences, 1 at a step from black to white.

    Args:
        x: float32 [B, C, H, W] in [0, 1].

    Returns:
        The same shape, from 0 to the root of 2; differentiable in x.
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return (across.square() + down.square() + 1e-8).sqrt()
