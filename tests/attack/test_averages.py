"""A hacker who has several copies of the same originals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from uge.attack import build_countermeasure, on_originals, why_unfit
from uge.copy.files import write_images
from uge.errors import ConfigError

from ..copy.copies import copied_by
from ..images import in_turn, noise

CLEAN = in_turn(noise(24, 3, 12, 14, least=60, most=199), *"abc")


def test_what_copies_do_not_share_falls_with_the_root_of_their_number(tmp_path: Path) -> None:
    copies = [copied_by("random-noise", CLEAN, seed=seed) for seed in range(4)]
    for number, copy in enumerate(copies[1:]):  # in another order, under the same names
        write_images(copy.subset(torch.randperm(24)), tmp_path / str(number))
    measure = build_countermeasure("averages:" + " ".join(str(tmp_path / str(number)) for number in range(3)))
    seen, labels = measure.prepare(copies[0])
    mean = torch.stack([copy.images.double() for copy in copies]).mean(0)
    assert labels is copies[0].labels and (seen.double() - mean).abs().max() <= 0.5
    change = [(images.double() - CLEAN.images).square().mean().sqrt() for images in (copies[0].images, seen)]
    assert float(change[1] / change[0]) == pytest.approx(0.5, abs=0.05)


def test_copies_of_other_images_are_refused_in_one_line(tmp_path: Path) -> None:
    turned = CLEAN.with_images(CLEAN.images.flip(3))
    small = replace(CLEAN, images=CLEAN.images[:, :, :10].contiguous())
    few = CLEAN.subset(torch.arange(20))
    for number, other in enumerate((turned, small, few)):
        write_images(other, tmp_path / str(number))
        with pytest.raises(ConfigError, match="images that are not those of the copy one by one, which has 24") as told:
            build_countermeasure(f"averages:{tmp_path / str(number)}").prepare(CLEAN)
        assert "\n" not in str(told.value)


def test_without_other_copies_he_is_left_out_and_of_originals_there_is_no_average() -> None:
    assert why_unfit("averages", CLEAN) == "needs other copies of the same originals: copies=FOLDER"
    assert why_unfit("averages:x", CLEAN) == "" and on_originals("jpeg:30+averages:x") == "jpeg:30"
