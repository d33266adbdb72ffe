"""Averages: a hacker who has several copies of the same originals trains on their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from uge.copy import Copy
from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.training import PlainTraining

NO_COPIES = "needs other copies of the same originals: copies=FOLDER"


class Averages(PlainTraining):
    """Train on the mean of several copies of each image.

        x <- (x_1 + ... + x_k) / k

    Against who publishes the same originals again, under another key or with another seed: what the copies do not
    share falls with the root of their number. Ours. Test images are shown as they are.

    Args:
        copies: folders of the other copies, separated by spaces. Their images are matched by name, or else by order.

    Raises:
        ConfigError: there are none.
    """

    knows = "other copies"

    def __init__(self, copies: str = "") -> None:
        self.folders = copies.split()
        if not self.folders:
            raise ConfigError(f"averages: {NO_COPIES}")

    @classmethod
    def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
        return "" if options.get("copies") else NO_COPIES

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """The means, rounded.

        Raises:
            ConfigError: a folder holds copies of other images, or of another size.
            UgeError: one cannot be read.
        """
        total = images.images.int()
        for folder in self.folders:
            other = Copy.read(folder).images.like(images)
            if not other.aligned(images):
                raise ConfigError(
                    f"averages: {folder} holds {len(other)} images that are not those of the copy one by one, which has"
                    f" {len(images)}; give another copy of the same originals, of the same size"
                )
            total += other.images
        count = 1 + len(self.folders)
        return ((2 * total + count) // (2 * count)).to(torch.uint8), images.labels
