"""Small originals, a copy of them and test images; a key of each kind; audits of these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from uge.audit.run import Audit
from uge.data.images import ImageSet, normalisation_of, to_float
from uge.keys import SealedKey, WeightsKey, new_weights_key
from uge.networks import NetworkSpec
from uge.training import Recipe

from ..copy.copies import sealed_by

Images = dict[str, ImageSet]
MakeAudit = Callable[..., Audit]
Rows = list[dict[str, Any]]
RECIPE = Recipe(epochs=2, batch_size=32)


def timeless(rows: Rows) -> Rows:
    """What records say but how long it took."""
    return [{name: value for name, value in row.items() if name not in ("seconds", "record_version")} for row in rows]


@pytest.fixture(scope="package")
def images(two_classes: tuple[ImageSet, ImageSet]) -> Images:
    """96 originals and their copy, 48 test images, at 16x16: as an audit is given them."""
    train, test = (
        part.with_images(F.avg_pool2d(to_float(part.images), 2).mul(255).round().to(torch.uint8))
        for part in two_classes
    )
    clean = train.subset(torch.arange(96))
    noise = torch.randint(-16, 17, clean.images.shape, generator=torch.Generator().manual_seed(0))
    copy = clean.with_images((clean.images.int() + noise).clamp(0, 255).to(torch.uint8))
    return {"published": copy, "test": test.subset(torch.arange(48)), "clean": clean}


@pytest.fixture(scope="package")
def key(images: Images) -> WeightsKey:
    """A key of initial weights: a convnet."""
    clean = images["clean"]
    spec = NetworkSpec("convnet", 3, clean.image_size, 2, {"width": 8})
    return new_weights_key(spec, clean.class_names, *normalisation_of(clean.images), RECIPE)


@pytest.fixture(scope="package")
def sealed(images: Images) -> dict[str, Any]:
    """A sealed key, and a copy of the originals for it: a shift a class."""
    clean, key = images["clean"], SealedKey.draw()
    return {"key": key, "published": clean.with_images(sealed_by(key, clean.images, 16, clean.labels))}


@pytest.fixture(scope="package")
def audit(images: Images, key: WeightsKey) -> MakeAudit:
    def make(folder: Path, **changes: Any) -> Audit:
        return Audit(folder=folder, **{**images, "key": key, "recipe": lambda network: RECIPE, **changes})

    return make
