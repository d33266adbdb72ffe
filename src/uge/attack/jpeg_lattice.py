"""The JPEG lattice: where originals were JPEGs, their frequencies are multiples of known steps, and copies' are not.

A decoded JPEG has c = k q at every frequency of every 8x8 block, k whole and q from the quantisation table (ITU-T
T.81, Annex A). A perturbation of some steps moves c by less than half of q at most frequencies, so that rounding takes
it away. Which table it was can still be read from the copy: q is the period of the histogram of c.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from uge.attack.options import number, whole
from uge.data.images import ImageSet
from uge.errors import DataError
from uge.filters import cosines
from uge.training import PlainTraining

SIDE = 8  # of a block
QUALITIES = range(5, 96)  # beyond, steps are too small to be read
SURE, CLEAR = 6.0, 0.1  # a lattice stands out by so many standard deviations, and its mean cosine is so large
ROUNDS = 30  # of expectation and maximisation


@dataclass(frozen=True)
class Lattice:
    """What was read from images.

    Attributes:
        quality: of libjpeg, whose tables these are.
        halved: whether the chroma planes have half the side (4:2:0).
        score: the mean of cos(2 pi c / q) over the frequencies that are not near zero; 1 for unchanged JPEGs.
    """

    quality: int
    halved: bool
    score: float


class JpegLattice(PlainTraining):
    """Move every frequency to where the lattice of the original JPEG has it, and no value by more than epsilon.

        c_hat = sum_k P(k | c) k q,   P(k | c) ~ p_k exp(-(c - k q)^2 / 2 s^2)

    p_k for each frequency, and one s, are estimated from the images by expectation and maximisation; where s is small
    beside q this is rounding. Ours. It needs images on the 8x8 grid that they were compressed on, in whole blocks, with
    the standard tables: originals that were resized, cropped off the grid or never compressed have no such lattice,
    and then this stops with an error that says so. Test images are shown as they are.

    Findings: `jpeg_quality`, `jpeg_halved_chroma`, `lattice_score`.

    Args:
        settings: what the copy's manifest says; empty for a folder of another program.
        quality: of the originals, 1 to 100; 0 reads it from the images.
        epsilon_255: bound of the published images, in steps of 255; by default that of the manifest, or 8.
    """

    def __init__(self, settings: Mapping[str, Any], quality: str | int = 0, epsilon_255: str | float = "") -> None:
        self.quality = whole("jpeg-lattice: quality", quality, 0, 100)
        bound = settings.get("epsilon_255", 8) if epsilon_255 == "" else epsilon_255
        self.epsilon_255 = number("jpeg-lattice: epsilon_255", bound, 0.1, 255)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Raises: DataError, where no quality is given and the images are on no lattice."""
        lattice = read_lattice(images.images, self.quality)
        if lattice is None:
            raise DataError(f"counter-measure 'jpeg-lattice': {NO_LATTICE}")
        self.findings = {
            "jpeg_quality": lattice.quality,
            "jpeg_halved_chroma": lattice.halved,
            "lattice_score": round(lattice.score, 4),
        }
        return on_lattice(images.images, lattice, self.epsilon_255), images.labels


NO_LATTICE = "the originals of these images were no JPEGs, or were resized or cropped since: they are on no lattice"


def read_lattice(images: Tensor, quality: int = 0) -> Lattice | None:
    """The lattice of uint8 images [N, C, H, W], or None if they are on none.

    Args:
        images: originals or copies.
        quality: where it is known.
    """
    if min(images.shape[2:]) < SIDE:
        return None
    some = images[:: max(1, len(images) // 500)]
    luma, *chroma = planes(some.float())
    c = frequencies(luma)
    if not quality:
        scores = {each: _score(c, table(each, 0))[0] for each in QUALITIES}
        # Half the step has all these points and more: of scores that are alike the coarsest table is the right one.
        best = max(scores.values())
        coarse = min(each for each, score in scores.items() if score >= best - 0.1 * abs(best))
        quality = max((each for each in QUALITIES if abs(each - coarse) <= 3), key=lambda each: scores[each])
        if best < SURE or _score(c, table(quality, 0))[1] < CLEAR:
            return None
    full, half = (
        sum(_score(frequencies(plane), table(quality, 1))[0] for plane in some_chroma)
        for some_chroma in (chroma, [halve(plane) for plane in chroma])
    )
    return Lattice(quality, half > full, _score(c, table(quality, 0))[1])


def on_lattice(images: Tensor, lattice: Lattice, epsilon_255: float) -> Tensor:
    """Every plane moved to the lattice, within epsilon of the images; uint8 [N, C, H, W] -> uint8."""
    luma, *chroma = planes(images.float())
    moved = [to_points(luma, table(lattice.quality, 0))]
    for plane in chroma:
        if lattice.halved:
            small = halve(plane)
            change = to_points(small, table(lattice.quality, 1)) - small
            finest = plane - double(small, plane.shape)  # a plane of half the side has none of it
            moved.append(plane - finest + double(change, plane.shape))
        else:
            moved.append(to_points(plane, table(lattice.quality, 1)))
    x = pixels(moved).round()
    seen = images.float()
    return torch.minimum(torch.maximum(x, seen - epsilon_255), seen + epsilon_255).clamp(0, 255).to(torch.uint8)


def planes(x: Tensor) -> list[Tensor]:
    """Y, and of colour images Cb and Cr, each [N, H, W] about zero, of float images on the scale 0..255 (JFIF)."""
    if x.shape[1] == 1:
        return [x[:, 0] - 128]
    red, green, blue = x.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return [luma - 128, (blue - luma) / 1.772, (red - luma) / 1.402]


def pixels(of: list[Tensor]) -> Tensor:
    """The images [N, C, H, W] of planes."""
    luma = of[0] + 128
    if len(of) == 1:
        return luma[:, None]
    blue, red = luma + 1.772 * of[1], luma + 1.402 * of[2]
    return torch.stack([red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue], dim=1)


def halve(plane: Tensor) -> Tensor:
    """Means over 2x2 pixels, as most encoders make them; [N, H, W] -> [N, H/2, W/2]."""
    return F.avg_pool2d(plane, 2, ceil_mode=True, count_include_pad=False)


def double(plane: Tensor, shape: torch.Size) -> Tensor:
    """Back to `shape`, between the pixels as libjpeg does it."""
    return F.interpolate(plane[:, None], scale_factor=2, mode="bilinear")[:, 0, : shape[1], : shape[2]]


def frequencies(plane: Tensor) -> Tensor:
    """The DCT of every whole block, [N, H, W] -> [M, 64]; orthonormal, as JPEG has it."""
    rows, columns = (side // SIDE * SIDE for side in plane.shape[1:])
    if not rows or not columns:
        return plane.new_zeros(0, SIDE * SIDE)
    blocks = plane[:, :rows, :columns].unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE).reshape(-1, SIDE, SIDE)
    basis = cosines(SIDE).to(plane.device)
    return (basis @ blocks @ basis.T).flatten(1)


def to_points(plane: Tensor, steps: Tensor) -> Tensor:
    """A plane [N, H, W] whose whole blocks are moved to the lattice of `steps` [64]; the rest stays."""
    c = frequencies(plane)
    if not len(c):
        return plane
    found = _expected(c, steps)
    basis = cosines(SIDE).to(plane.device)
    blocks = basis.T @ found.view(-1, SIDE, SIDE) @ basis
    count, (rows, columns) = len(plane), (side // SIDE for side in plane.shape[1:])
    moved = plane.clone()
    whole_part = blocks.view(count, rows, columns, SIDE, SIDE).transpose(2, 3)
    moved[:, : rows * SIDE, : columns * SIDE] = whole_part.reshape(count, rows * SIDE, columns * SIDE)
    return moved


def _expected(c: Tensor, steps: Tensor) -> Tensor:
    """E[k q | c] for c [M, 64], by tables over the whole values of c; see `JpegLattice`."""
    values, counts, far, points = [], [], [], []  # of each frequency
    bins = c.round().long()
    for column, q in zip(bins.T, steps.tolist(), strict=True):
        reach = int(column.abs().max())
        counts.append(torch.bincount(column + reach, minlength=2 * reach + 1).double())
        values.append(torch.arange(-reach, reach + 1, dtype=torch.float64))
        most = -(-reach // int(q))
        points.append(q * torch.arange(-most, most + 1, dtype=torch.float64))
        far.append((values[-1][:, None] - points[-1]).square())  # [values, points]
    weights = [torch.full((len(each),), 1 / len(each), dtype=torch.float64) for each in points]
    variance = 25.0
    for _ in range(ROUNDS):
        spread = 0.0
        for f, distance in enumerate(far):
            share = _shares(distance, weights[f], variance) * counts[f][:, None]
            spread += float((share * distance).sum())
            weights[f] = (share.sum(0) + 1e-3) / (share.sum() + 1e-3 * len(points[f]))
        variance = max(0.25, spread / c.numel())  # values are whole: no less than their rounding
    found = torch.empty_like(c)
    for f, distance in enumerate(far):
        means = (_shares(distance, weights[f], variance) @ points[f]).to(c.dtype)
        found[:, f] = means[bins[:, f] + len(values[f]) // 2]
    return found


def _shares(far: Tensor, weight: Tensor, variance: float) -> Tensor:
    """P(k | c), [bins, points]."""
    return torch.softmax(weight.log() - far / (2 * variance), dim=1)


def _score(c: Tensor, steps: Tensor) -> tuple[float, float]:
    """How well c [M, 64] sits on a lattice, beyond half a step: the cosine's sum in standard deviations, its mean."""
    inside = c.abs() > steps / 2
    count = int(inside.sum())
    if not count:
        return 0.0, 0.0
    total = float(torch.cos(2 * math.pi * c / steps)[inside].sum())
    return total / math.sqrt(count / 2), total / count


@cache
def table(quality: int, which: int) -> Tensor:
    """The quantisation steps [64], row by row, of luma (0) or chroma (1), as libjpeg writes them."""
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as picture:
        return torch.tensor(picture.quantization[which], dtype=torch.float32)  # type: ignore[attr-defined]  # JPEGs have it
