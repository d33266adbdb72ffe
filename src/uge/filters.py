"""What may happen to an image on its way to a network: differentiable filters on batches, by name.

The protector takes expectations over them, and hackers apply them. Each takes and returns float32 [B, C, H, W] in
[0, 1]. A name may carry one number, as in "jpeg:30" or "blur:1.5".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import kornia
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.errors import ConfigError, unknown_name

Filter = Callable[[Tensor], Tensor]


def grayscale(x: Tensor) -> Tensor:
    """Luma of ITU-R BT.601 in every channel; gray images stay as they are."""
    if x.shape[1] == 1:
        return x
    return kornia.color.rgb_to_grayscale(x).expand_as(x)


def blur(x: Tensor, sigma: float = 1.0) -> Tensor:
    """Gaussian blur; sigma in pixels."""
    size = 2 * round(2 * sigma) + 1
    return kornia.filters.gaussian_blur2d(x, (size, size), (sigma, sigma), border_type="replicate")


def jpeg(x: Tensor, quality: float = 50) -> Tensor:
    """JPEG's colour transform, DCT and quantisation without its bit stream; differentiable (Reich et al. 2024)."""
    height, width = x.shape[2:]
    padded = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    colour = padded.expand(-1, 3, -1, -1)
    coded = _codec()(colour, torch.full((len(x),), float(quality), device=x.device))
    return coded[:, : x.shape[1], :height, :width]


def pool(x: Tensor, side: float = 2) -> Tensor:
    """Average pooling and back: a thumbnail at the image's own size."""
    small = F.avg_pool2d(x, int(side), ceil_mode=True, count_include_pad=False)
    return F.interpolate(small, scale_factor=int(side), mode="bilinear")[:, :, : x.shape[2], : x.shape[3]]


def depth(x: Tensor, bits: float = 3) -> Tensor:
    """Rounding to fewer bits a value; its gradient is passed straight through."""
    steps = 2 ** int(bits) - 1
    return x + ((x * steps).round() / steps - x).detach()


FILTERS: dict[str, tuple[Callable[..., Tensor], float | None, float | None]] = {  # function, least, most of the number
    "none": (lambda x: x, None, None),
    "grayscale": (grayscale, None, None),
    "blur": (blur, 0.1, 10),
    "jpeg": (jpeg, 1, 100),
    "pool": (pool, 2, 64),
    "depth": (depth, 1, 8),
}


def parse_filter(text: str) -> Filter:
    """A filter from its text, such as "grayscale" or "jpeg:30".

    Raises:
        ConfigError: unknown name, or a number that is none, is out of range or is not taken.
    """
    name, colon, number = text.partition(":")
    if name not in FILTERS:
        raise unknown_name("filter", name, FILTERS)
    function, least, most = FILTERS[name]
    if not colon:
        return function
    try:
        value = float(number)
        if least is None or most is None or not least <= value <= most:
            raise ValueError
    except ValueError as error:
        expected = "it takes no number" if least is None else f"expected a number from {least} to {most}"
        raise ConfigError(f"filter '{text}': {expected}") from error
    return partial(function, **{list(function.__annotations__)[1]: value})


@cache
def _codec() -> nn.Module:
    return kornia.enhance.JPEGCodecDifferentiable()
