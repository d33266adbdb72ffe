"""The example of another program's copy: a plain ImageFolder that an audit can read."""

from __future__ import annotations

import sys

import pytest

import uge
from examples import foreign_folder


@pytest.mark.parametrize("method", ["class-noise", "patches"])
def test_it_writes_an_image_folder_within_its_bound(sealed_copy, tmp_path, monkeypatch, method: str) -> None:
    data, out = sealed_copy[2], tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["foreign_folder.py", "--method", method, "--data", data, "--out", str(out)])
    foreign_folder.main()
    copy = uge.Copy.read(out)
    clean = uge.load(data, "train").like(copy.images)
    assert copy.manifest is None
    assert 0 < (copy.images.images.int() - clean.images.int()).abs().max() <= 16
