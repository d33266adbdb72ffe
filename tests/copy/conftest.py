"""A key and a copy with letters, new for each test."""

from dataclasses import replace
from pathlib import Path

import pytest

from uge.data.images import ImageSet
from uge.keys import SealedKey

from .copies import make_set, published_sealed


@pytest.fixture
def clean() -> ImageSet:
    return make_set()


@pytest.fixture
def key() -> SealedKey:
    return SealedKey.draw()


@pytest.fixture
def recipient(key) -> SealedKey:
    return replace(key, signing_key=None)


@pytest.fixture
def copy(clean, key, tmp_path) -> Path:
    published_sealed(tmp_path / "copy", clean, key)
    return tmp_path / "copy"
