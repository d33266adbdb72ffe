"""A small sealed copy that the examples learn from."""

from __future__ import annotations

import pytest
import torch

from uge.keys import SealedKey, save_key

from ..copy.copies import published_sealed
from ..images import save_splits


@pytest.fixture(scope="package")
def sealed_copy(two_classes, tmp_path_factory) -> tuple[str, str, str]:
    """A published folder of two classes, its recipient's key, and test images as DATA."""
    train, test = two_classes
    folder, key = tmp_path_factory.mktemp("examples"), SealedKey.draw()
    published_sealed(folder / "published", train, key)
    save_key(key, folder / "mine")
    data = save_splits(folder / "held-out.npz", train=train.subset(torch.arange(2)), test=test)
    return str(folder / "published"), str(folder / "mine.recipient.uge"), data
