from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from uge.runtime import best_device, device_in_turn, environment, generator_for, seed_for


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


def test_the_device_is_a_gpu_where_there_is_one() -> None:
    assert best_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_in_turn(torch.device("cpu"), 3) == torch.device("cpu")


def test_several_gpus_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    turns = [str(device_in_turn(torch.device("cuda"), turn)) for turn in range(3)]
    assert turns == ["cuda:0", "cuda:1", "cuda:0"]


def test_environment_fits_in_a_record_and_names_nobody() -> None:
    facts = environment()
    assert {"uge", "python", "torch", "device"} <= set(facts)
    assert str(Path.home()) not in json.dumps(facts)
