from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from uge.errors import ConfigError
from uge.runtime import environment, generator_for, resolve_device, seed_for


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), 4359823973405836615), (("attack", "vgg", 2), 8420200578146128955), (("train",), 3844670885644490030)],
)
def test_seeds_stay_what_they_were_in_the_first_release(names: tuple[object, ...], expected: int) -> None:
    assert seed_for(7, *names) == expected


def test_seeds_differ_by_user_seed_name_and_split_of_names() -> None:
    seeds = {seed_for(0), seed_for(1), seed_for(0, "a"), seed_for(0, "b"), seed_for(0, "ab"), seed_for(0, "a", "b")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_named_generator_repeats_itself_and_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    first, second = (torch.rand(4, generator=generator_for(3, "x")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=generator_for(3, "y")))
    assert torch.equal(before, torch.get_rng_state())


def test_devices_resolve_or_say_what_to_write() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="unknown device 'gpu'; use auto, cpu or cuda"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="unknown device 'meta'; use auto, cpu or cuda"):
        resolve_device("meta")


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a GPU")
def test_a_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ConfigError, match="use --device cpu"):
        resolve_device("cuda")


def test_environment_fits_in_a_record_and_names_nobody() -> None:
    facts = environment()
    assert {"uge", "python", "torch", "device"} <= set(facts)
    assert str(Path.home()) not in json.dumps(facts)
