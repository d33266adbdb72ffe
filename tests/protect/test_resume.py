"""Interrupted, killed and resumed runs end in the same bytes; a work folder belongs to one run."""

from __future__ import annotations

import io
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from uge import checkpoint
from uge.data.images import ImageSet
from uge.errors import PublishError
from uge.keys import WeightsKey, save_key
from uge.protect.ungeneralizable import UngeneralizableConfig, UngeneralizableProtection

Small = Callable[..., UngeneralizableConfig]
Make = Callable[..., UngeneralizableProtection]


@pytest.fixture(scope="module")
def keys(gray: ImageSet, key: WeightsKey, make_key: Callable[..., WeightsKey]) -> list[WeightsKey]:
    return [key, make_key(gray, "mlp:width=16", optimiser="adamw", learning_rate=1e-3)]


@pytest.fixture(scope="module")
def make(gray: ImageSet, keys: list[WeightsKey], small: Small) -> Make:
    def protection(workdir: Path | None, **changes: Any) -> UngeneralizableProtection:
        options = {"checkpoint_seconds": 0.0, "seed": 0} | changes
        return UngeneralizableProtection(gray, keys, small(), workdir=workdir, **options)

    return protection


@pytest.fixture(scope="module")
def undisturbed(make: Make) -> UngeneralizableProtection:
    """Without a work folder: writing checkpoints must not change the result either."""
    protection = make(None)
    protection.train()
    return protection


def assert_same(protection: UngeneralizableProtection, undisturbed: UngeneralizableProtection) -> None:
    assert torch.equal(torch.cat(list(protection.copies())), torch.cat(list(undisturbed.copies())))
    mine, other = ([row | {"seconds": 0} for row in each.log] for each in (protection, undisturbed))
    assert mine == other
    seconds = [row["seconds"] for row in protection.log]
    assert seconds == sorted(seconds)


def interrupt_at(step: int) -> Callable[[dict[str, Any], int], None]:
    def interrupt(row: dict[str, Any], total: int) -> None:
        assert total == 9
        if row["step"] == step:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("steps", [(1,), (4, 8), (9,)], ids=str)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    make: Make, undisturbed: UngeneralizableProtection, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    for step in steps:
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "work").train(interrupt_at(step))
    seen: list[int] = []
    protection = make(tmp_path / "work")
    protection.train(lambda row, total: seen.append(row["step"]))
    assert seen == list(range(steps[-1], 10))  # a step's checkpoint follows its report: that one step is repeated
    assert_same(protection, undisturbed)


def test_without_a_checkpoint_the_same_object_starts_again_from_nothing(
    make: Make, undisturbed: UngeneralizableProtection
) -> None:
    protection = make(None)
    with pytest.raises(KeyboardInterrupt):
        protection.train(interrupt_at(4))
    protection.train()
    assert_same(protection, undisturbed)


def test_an_interrupt_while_a_checkpoint_is_written_leaves_the_last_one(
    make: Make, undisturbed: UngeneralizableProtection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.save

    def torn(content: Any, handle: Any) -> None:
        if isinstance(content, dict) and len(content.get("log", ())) == 5:
            handle.write(b"half a checkpoint")
            raise KeyboardInterrupt
        whole(content, handle)

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path).train()
    monkeypatch.undo()
    protection = make(tmp_path)
    protection.train()
    assert_same(protection, undisturbed)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from uge.data.images import ImageSet
from uge.keys import load_key
from uge.protect.ungeneralizable import UngeneralizableConfig, UngeneralizableProtection

folder = Path(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
content = torch.load(folder / "content.pt")
keys = [load_key(folder / f"{number}.protector.uge") for number in range(2)]
config = UngeneralizableConfig(**content["config"])
protection = UngeneralizableProtection(
    ImageSet(**content["images"]), keys, config, seed=0, workdir=folder / "work", checkpoint_seconds=0.0
)
protection.train(lambda row, total: row["step"] == 6 and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_process_is_resumed_by_another_to_the_same_bytes(
    make: Make, undisturbed: UngeneralizableProtection, keys: list[WeightsKey], tmp_path: Path
) -> None:
    content = {"images": vars(undisturbed.clean), "config": undisturbed.config.to_dict()}
    torch.save(content, tmp_path / "content.pt")
    for number, key in enumerate(keys):
        save_key(key, tmp_path / str(number))
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(torch.get_num_threads())]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    seen: list[int] = []
    protection = make(tmp_path / "work")
    protection.train(lambda row, total: seen.append(row["step"]))
    assert seen == [6, 7, 8, 9]
    assert_same(protection, undisturbed)


def test_a_work_folder_belongs_to_one_run(
    make: Make, gray: ImageSet, keys: list[WeightsKey], small: Small, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path).train(interrupt_at(2))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    fewer = gray.subset(torch.arange(80))
    others = [
        UngeneralizableProtection(gray, keys, small(epsilon_255=8), seed=0, workdir=tmp_path),
        UngeneralizableProtection(gray, keys, small(), seed=1, workdir=tmp_path),
        UngeneralizableProtection(gray, keys[:1], small(), seed=0, workdir=tmp_path),
        UngeneralizableProtection(fewer, keys, small(), seed=0, workdir=tmp_path),
    ]
    for other in others:
        with pytest.raises(PublishError, match="holds an unfinished run with other data, keys or settings") as caught:
            other.train()
        assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_work_folder_is_closed_to_other_users(make: Make, tmp_path: Path) -> None:
    """It holds the key's initial weights, as the first state of the clean run."""
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "work").train(interrupt_at(1))
    assert stat.S_IMODE((tmp_path / "work").stat().st_mode) == 0o700


def test_a_work_folder_that_cannot_be_made_is_one_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    for workdir in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(PublishError, match=f"cannot write {workdir}") as caught:
            make(workdir).train()
        assert "\n" not in str(caught.value)


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_later(
    make: Make, undisturbed: UngeneralizableProtection, tmp_path: Path
) -> None:
    """The operating system refuses every byte of a file beyond a limit, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row: dict[str, Any], total: int) -> None:
        if row["step"] == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))

    try:
        with pytest.raises(PublishError) as caught:
            make(tmp_path).train(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"cannot write {tmp_path / 'checkpoint.pt'}: {os.strerror(27)}"
    assert not (tmp_path / "checkpoint.tmp").exists()
    protection = make(tmp_path)
    protection.train()
    assert_same(protection, undisturbed)


@pytest.mark.parametrize("name", ["checkpoint.pt", "clean-run-1.pt"])
def test_a_damaged_work_folder_says_what_to_delete(make: Make, tmp_path: Path, name: str) -> None:
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        make(work).train(interrupt_at(3))
    whole = (work / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no checkpoint"):
        (work / name).write_bytes(content)
        with pytest.raises(
            PublishError, match=f"cannot read {work / name}, it is damaged; delete {work} and"
        ) as caught:
            make(work).train()
        assert "\n" not in str(caught.value)
    shutil.rmtree(work)


@pytest.mark.parametrize("write", [1, 2, 5, 6])
def test_ctrl_c_within_a_write_is_ctrl_c_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """Raised while torch writes its archive, an interrupt would otherwise come out as torch's RuntimeError."""
    file = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(file, {"step": 1})

    class Interrupted(io.BytesIO):
        writes = 0

        def write(self, data: Any) -> int:
            self.writes += 1
            if self.writes == write:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(checkpoint.io, "BytesIO", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(file, {"step": 2, "values": torch.zeros(100)})
    monkeypatch.undo()
    assert checkpoint.load_checkpoint(file) == {"step": 1}
    assert list(tmp_path.iterdir()) == [file]
