"""Filters as counter-measures: the hacker trains and tests on filtered images."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uge.data.images import ImageSet, to_float, to_uint8
from uge.errors import ConfigError
from uge.filters import parse_filter
from uge.training import PlainTraining


class Filtered(PlainTraining):
    """Pass every image through one filter, once, in 8 bit; the trained network sees its test images so too.

    Grayscale and JPEG against unlearnable examples: Liu, Zhao & Larson, "Image Shortcut Squeezing", ICML 2023.

    Args:
        text: a filter such as "blur:1.5" (see `uge.filters`).
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.filter = parse_filter(text)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        return self.pixels(images.images), images.labels

    def at_test(self, images: ImageSet) -> ImageSet:
        return images.with_images(self.pixels(images.images))

    @torch.no_grad()
    def pixels(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> uint8, the same shape."""
        return torch.cat([to_uint8(self.filter(to_float(part))) for part in images.split(500)])


class Jpeg(Filtered):
    """Compress every image with a real JPEG encoder.

    Args:
        quality: 1 to 100, as libjpeg counts it; with 4:2:0 chroma, as most encoders do.
    """

    def __init__(self, quality: str | int = 50) -> None:
        super().__init__(f"jpeg:{quality}")
        self.quality = int(float(quality))

    def pixels(self, images: Tensor) -> Tensor:
        coded = torch.empty_like(images)
        for place, image in zip(coded, images, strict=True):
            array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            buffer = io.BytesIO()
            picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
            picture.save(buffer, "JPEG", quality=self.quality)
            with Image.open(buffer) as seen:
                place.copy_(torch.from_numpy(np.array(seen).reshape(array.shape)).permute(2, 0, 1))
        return coded


def grayscale() -> Filtered:
    """Luma in every channel: perturbations in the colours vanish."""
    return Filtered("grayscale")


def blur(sigma: str | float = 1.0) -> Filtered:
    """Gaussian blur, sigma in pixels: perturbations finer than that vanish."""
    return Filtered(f"blur:{sigma}")


def pool(side: str | int = 2) -> Filtered:
    """Average pooling and back: what is zero on the mean over a square vanishes."""
    return Filtered(f"pool:{side}")


def depth(bits: str | int = 3) -> Filtered:
    """Fewer bits a value."""
    if not str(bits).isdecimal():
        raise ConfigError(f"depth: expected a whole number of bits, got '{bits}'")
    return Filtered(f"depth:{bits}")


def median(side: str | int = 3) -> Filtered:
    """Median over a square: perturbations of single pixels and thin lines vanish."""
    return Filtered(f"median:{side}")


def low_pass(share: str | float = 0.5) -> Filtered:
    """The lower share of the frequencies alone."""
    return Filtered(f"low-pass:{share}")


def wavelet(threshold: str | float = 16) -> Filtered:
    """Haar details below a threshold (in steps of 255) vanish, greater ones shrink by it: edges stay sharp."""
    return Filtered(f"wavelet:{threshold}")
