"""Filters as counter-measures: the hacker trains and tests on filtered images."""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from uge.data.decoding import picture_of, tensor_of
from uge.data.images import ImageSet, to_float, to_uint8
from uge.filters import FILTERS, parse_filter
from uge.training import PlainTraining

COLOURS = ("grayscale", "chroma", "lab")  # are about what only colour images have


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

    tried = FILTERS["jpeg"].tried

    def __init__(self, quality: str | int = 50) -> None:
        super().__init__(f"jpeg:{quality}")
        self.quality = int(float(quality))

    def pixels(self, images: Tensor) -> Tensor:
        coded = torch.empty_like(images)
        for place, image in zip(coded, images, strict=True):
            buffer = io.BytesIO()
            picture_of(image).save(buffer, "JPEG", quality=self.quality)
            with Image.open(buffer) as seen:
                place.copy_(tensor_of(seen))
        return coded


def of_filter(name: str) -> type[Filtered]:
    """The counter-measure that is one of `uge.filters.FILTERS`, with the filter's number as its option."""

    class OneFilter(Filtered):
        __doc__ = FILTERS[name].function.__doc__
        __signature__ = inspect.Signature(list(inspect.signature(FILTERS[name].function).parameters.values())[1:])
        tried = FILTERS[name].tried

        def __init__(self, **number: str | float) -> None:
            super().__init__(":".join([name, *map(str, number.values())]))

        @classmethod
        def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
            return "the images are gray already" if name in COLOURS and images.channels == 1 else ""

    return OneFilter
