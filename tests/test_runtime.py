from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch

from uge.errors import ConfigError, PublishError
from uge.runtime import claim_folder, environment, generator_for, resolve_device, seed_for, write_atomically


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


def test_a_written_file_has_content_and_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "secret.bin"
    write_atomically(target, b"old")
    write_atomically(target, "täglich", mode=0o600)
    assert target.read_text(encoding="utf-8") == "täglich"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]


def test_a_written_file_is_as_private_as_the_user_asks(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "mine", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o600


def test_a_target_that_is_a_folder_fails_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(PublishError, match=r"cannot write .*taken"):
        write_atomically(target, b"x")
    assert list(tmp_path.iterdir()) == [target]


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="cannot write"):
        write_atomically(tmp_path / "file" / "x", b"x")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PublishError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_atomically(target, b"new")
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {target}: No space left on device"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_a_kill_left_half_claimed_can_be_claimed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".run.json.x7").write_text("{")  # the temporary name of `write_atomically`
    for _ in range(2):  # anew, and going on
        claim_folder(out, "run.json", "mine", "run")
    with pytest.raises(PublishError, match="another run"):
        claim_folder(out, "run.json", "yours", "run")
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(PublishError, match="is not empty"):
        claim_folder(tmp_path, "run.json", "mine", "run")
