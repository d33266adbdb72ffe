"""What may happen to an image on its way to a network: differentiable filters on batches, by name.

The protector takes expectations over them, and hackers apply them. Each takes and returns float32 [B, C, H, W] in
[0, 1]. A name may carry one number, as in "jpeg:30" or "blur:1.5".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial, reduce
from typing import NamedTuple

import kornia
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge import operations
from uge.errors import ConfigError
from uge.grammar import parse_named
from uge.operations import luma

Filter = Callable[[Tensor], Tensor]


def grayscale(x: Tensor) -> Tensor:
    """Luma of ITU-R BT.601 in every channel; gray images stay as they are."""
    return luma(x).expand_as(x)


def gaussian_blur(x: Tensor, sigma: float = 1.0) -> Tensor:
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


def median(x: Tensor, side: float = 3) -> Tensor:
    """Median of each channel over a square around each pixel; an even side counts as the next odd one (Tukey 1977)."""
    reach = int(side) // 2
    around = F.pad(x, (reach,) * 4, mode="replicate").unfold(2, 2 * reach + 1, 1).unfold(3, 2 * reach + 1, 1)
    return around.flatten(4).median(dim=4).values


def low_pass(x: Tensor, share: float = 0.5) -> Tensor:
    """Keep the lower `share` of the frequencies of each direction in an orthonormal DCT-II.

    y = Dh' Mh Dh x Dw' Mw Dw with D the cosine basis and M a diagonal of ones, then zeros (Ahmed, Natarajan & Rao
    1974). Cosines and not Fourier's waves: these would join opposite borders and ring there.
    """
    for axis in (2, 3):
        basis = cosines(x.shape[axis]).to(x.device)
        kept = basis[: max(1, round(share * len(basis)))]
        x = torch.tensordot(x, kept.T @ kept, dims=([axis], [0])).movedim(-1, axis)
    return x.clamp(0, 1)


def wavelet(x: Tensor, threshold: float = 16) -> Tensor:
    """Soft thresholds on three levels of an orthonormal Haar transform, averaged over shifts.

    d -> sign(d) max(|d| - t, 0) on every detail coefficient d (Donoho & Johnstone 1994), t in steps of 255; the mean
    over four diagonal shifts takes away the blocks (Coifman & Donoho 1995).
    """
    height, width = x.shape[2:]
    shifts = (0, 2, 5, 7)
    seen = torch.zeros_like(x)
    for shift in shifts:
        rest = F.pad(x, (shift, -(width + shift) % 8, shift, -(height + shift) % 8), mode="replicate")
        restored = _shrink(rest, threshold / 255, levels=3)
        seen = seen + restored[:, :, shift : shift + height, shift : shift + width]
    return (seen / len(shifts)).clamp(0, 1)


def _shrink(x: Tensor, threshold: float, levels: int) -> Tensor:
    """Haar transform, soft threshold of the details, and back; x [B, C, H, W], sides divisible by 2**levels."""
    if not levels:
        return x
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    mean = _shrink((a + b + c + d) / 2, threshold, levels - 1)
    p, q, r = (F.softshrink(detail / 2, threshold) for detail in (a - b + c - d, a + b - c - d, a - b - c + d))
    back = (mean + p + q + r, mean - p + q - r, mean + p - q - r, mean - p - q + r)
    return F.pixel_shuffle(torch.stack(back, dim=2).flatten(1, 2) / 2, 2)


def high_pass(x: Tensor, sigma: float = 1.0) -> Tensor:
    """What a blur takes away, twice as strong about middle gray: 0.5 + 2 (x - G x); sigma in pixels."""
    return (0.5 + 2 * (x - gaussian_blur(x, sigma))).clamp(0, 1)


def sobel(x: Tensor) -> Tensor:
    """How steep the luma is, in every channel: |(S x, S' x)| / 4, which is 1 at a step from black to white.

    S is Sobel's kernel (Sobel & Feldman 1968).
    """
    across = x.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    slopes = F.conv2d(F.pad(luma(x), (1, 1, 1, 1), mode="replicate"), torch.stack([across, across.T])[:, None])
    return (slopes.square().sum(1, keepdim=True) + 1e-8).sqrt().clamp(max=1).expand_as(x)


def chroma(x: Tensor) -> Tensor:
    """The colours alone: luma is its mean everywhere."""
    light = luma(x)
    return (x - light + light.mean((2, 3), keepdim=True)).clamp(0, 1)


def local_contrast(x: Tensor, sigma: float = 2.0) -> Tensor:
    """Every channel with the same mean and contrast everywhere: 0.5 + (x - G x) / (4 s + 0.08), s^2 = G (x - G x)^2.

    Divisive normalisation (Jarrett et al., What is the Best Multi-Stage Architecture for Object Recognition?, ICCV
    2009) in a Gaussian window of sigma pixels. Ours: the 0.08 keeps what is flat from becoming noise.
    """
    rest = x - gaussian_blur(x, sigma)
    return (0.5 + rest / (4 * (gaussian_blur(rest.square(), sigma) + 1e-8).sqrt() + 0.08)).clamp(0, 1)


def equalise_straight_through(x: Tensor) -> Tensor:
    """Histogram equalisation of each channel (see `operations.equalise`); its gradient is passed straight through."""
    return x + (operations.equalise(x, x.new_zeros(len(x))) - x).detach()


def normalise(x: Tensor) -> Tensor:
    """Every channel of an image with mean 0.5 and deviation 0.25: tints and contrast say nothing any more."""
    mean = x.mean((2, 3), keepdim=True)
    deviation = ((x - mean).square().mean((2, 3), keepdim=True) + 1e-4).sqrt()
    return (0.5 + (x - mean) / (4 * deviation)).clamp(0, 1)


def lab(x: Tensor) -> Tensor:
    """CIE L*a*b*, L / 100 and (a + 128) / 255, (b + 128) / 255; gray images stay as they are."""
    if x.shape[1] == 1:
        return x
    light, *colours = kornia.color.rgb_to_lab(x).split(1, dim=1)
    return torch.cat([light / 100, *((colour + 128) / 255 for colour in colours)], dim=1).clamp(0, 1)


class Known(NamedTuple):
    """A filter: its function, the least and the most of its number if it takes one, and which numbers audits try."""

    function: Callable[..., Tensor]
    least: float | None = None
    most: float | None = None
    tried: tuple[str, ...] = ("",)


FILTERS = {
    "none": Known(lambda x: x),
    "grayscale": Known(grayscale),
    "blur": Known(gaussian_blur, 0.3, 10, ("1",)),
    "jpeg": Known(jpeg, 1, 100, ("10", "30", "50", "75")),
    "pool": Known(pool, 2, 64, ("2",)),
    "depth": Known(depth, 1, 7, ("3",)),
    "median": Known(median, 3, 15, ("3",)),
    "low-pass": Known(low_pass, 0.01, 0.95, ("0.5",)),
    "wavelet": Known(wavelet, 1, 255, ("16",)),
    "high-pass": Known(high_pass, 0.3, 10),
    "sobel": Known(sobel),
    "chroma": Known(chroma),
    "local-contrast": Known(local_contrast, 0.5, 10),
    "equalise": Known(equalise_straight_through),
    "normalise": Known(normalise),
    "lab": Known(lab),
}


def parse_filter(text: str) -> Filter:
    """A filter from its text, such as "grayscale" or "jpeg:30", or several in their order, "grayscale+jpeg:30".

    Raises:
        ConfigError: unknown name, or a number that is none, is out of range or is not taken.
    """
    parts = [_parse_one(part) for part in text.split("+")]
    return parts[0] if len(parts) == 1 else lambda x: reduce(lambda seen, part: part(seen), parts, x)


def _parse_one(text: str) -> Filter:
    name, options = parse_named(text, "filter", FILTERS, _options_of)
    function, least, most, _ = FILTERS[name]
    try:
        numbers = {option: float(number) for option, number in options.items()}
        if least is not None and most is not None and not all(least <= number <= most for number in numbers.values()):
            raise ValueError
    except ValueError as error:
        raise ConfigError(f"filter '{text}': expected a number from {least} to {most}") from error
    return partial(function, **numbers) if numbers else function


def _options_of(name: str) -> list[str]:
    """The number that a filter takes, if any."""
    function, least, _, _ = FILTERS[name]
    return [] if least is None else [list(function.__annotations__)[1]]


@cache
def _codec() -> nn.Module:
    return kornia.enhance.JPEGCodecDifferentiable()


@cache
def cosines(side: int) -> Tensor:
    """The orthonormal DCT-II basis float32 [side, side]; row k has frequency k."""
    place = torch.arange(side, dtype=torch.float64)
    basis = torch.cos(math.pi * place[:, None] * (place + 0.5) / side) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis.float()
