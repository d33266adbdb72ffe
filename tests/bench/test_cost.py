"""What a copy costs is known of every copy, whatever is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uge.bench.cost import CopyJob, make_copy, read_cost, was_made
from uge.copy import MANIFEST
from uge.data.images import ImageSet
from uge.protect import resolve_config


@pytest.fixture
def job(two_classes: tuple[ImageSet, ImageSet], tmp_path: Path) -> CopyJob:
    clean = two_classes[0].subset(torch.arange(8))
    return CopyJob(clean, "random-noise", resolve_config("random-noise"), 0, tmp_path / "copy", None, "cpu", 1)


def test_a_copy_whose_cost_was_lost_is_made_again_and_is_the_same(job: CopyJob) -> None:
    assert not was_made(job)
    make_copy(job)
    first, manifest = read_cost(job.clock), (job.out / MANIFEST).read_bytes()
    assert was_made(job) and first["finished"] and first["parts"] == 1
    job.clock.write_text('{"seconds": ')  # as nobody leaves it, but a disk may
    assert not was_made(job) and not job.out.exists()
    make_copy(job)
    assert was_made(job) and read_cost(job.clock)["parts"] == 1
    assert (job.out / MANIFEST).read_bytes() == manifest
