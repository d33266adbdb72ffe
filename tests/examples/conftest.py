"""A small sealed copy that the examples learn from."""

from __future__ import annotations

import numpy as np
import pytest

from uge.copy import publish
from uge.keys import SealedKey, save_key

from ..copy.copies import sealed_by


@pytest.fixture(scope="package")
def sealed_copy(two_classes, tmp_path_factory) -> tuple[str, str, str]:
    """A published folder of two classes, its recipient's key, and test images as DATA."""
    train, test = two_classes
    folder, key = tmp_path_factory.mktemp("examples"), SealedKey.draw()
    copies = sealed_by(key, train.images, 16)
    publish(train, copies, folder / "published", method="sealed", settings={}, epsilon_255=16, signers=[key])
    save_key(key, folder / "mine")
    np.savez(
        folder / "held-out.npz",
        x_train=train.images[:2].permute(0, 2, 3, 1).numpy(), y_train=train.labels[:2].numpy(),
        x_test=test.images.permute(0, 2, 3, 1).numpy(), y_test=test.labels.numpy(),
        class_names=np.array(train.class_names),
    )  # fmt: skip
    return str(folder / "published"), str(folder / "mine.recipient.uge"), str(folder / "held-out.npz")
