from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest.mock import Mock

import pytest

from uge.durable import append, check_target, claimed, new_folder, remove_folder, tidy, write_file
from uge.errors import PublishError
from uge.locks import held, private_folder

from .refusals import refused

FORK = multiprocessing.get_context("fork")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def killed_child(code: str, folder: Path) -> None:
    """Run code in another process, which `die()` in it kills."""
    start = (
        "import os, signal\nfrom pathlib import Path\nfrom uge.durable import *\n"
        "die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = subprocess.run([sys.executable, "-c", start + code], cwd=folder, timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL


def test_a_written_file_has_content_and_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "secret.bin"
    write_file(target, b"old")
    write_file(target, "täglich", mode=0o600)
    assert target.read_text(encoding="utf-8") == "täglich"
    assert mode(target) == 0o600
    assert list(target.parent.iterdir()) == [target]


def test_a_written_file_is_as_private_as_the_user_asks(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "mine", b"x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "mine") == 0o600


def test_a_target_that_is_a_folder_or_in_a_file_fails_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    for target in ("taken", "file/x"):
        with refused(PublishError, f"cannot write .*{target}"):
            write_file(tmp_path / target, b"x")
    assert names(tmp_path) == ["file", "taken"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "file"
    write_file(target, b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PublishError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_file(target, b"new")
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {target}: No space left on device"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_kill_left_of_a_file_is_gone_after_the_next_write(tmp_path: Path) -> None:
    killed_child("os.replace = lambda *_: die()\nwrite_file(Path('file'), 'half')", tmp_path)
    assert names(tmp_path) == [".file.uge"]
    write_file(tmp_path / "file", "whole", mode=0o600)
    assert names(tmp_path) == ["file"]
    assert ((tmp_path / "file").read_text(), mode(tmp_path / "file")) == ("whole", 0o600)


def _write_often(target: Path, text: str) -> None:
    for _ in range(20):
        write_file(target, text * 10_000)


def test_processes_that_write_one_file_at_once_each_write_it_whole(tmp_path: Path) -> None:
    target = tmp_path / "page"
    with FORK.Pool(3) as pool:
        writing = pool.starmap_async(_write_often, [(target, text) for text in "abc"])
        while not writing.ready():
            if target.exists():
                text = target.read_text()
                assert len(text) == 10_000 and len(set(text)) == 1
        writing.get()
    assert names(tmp_path) == ["page"]


@pytest.mark.parametrize(("name", "write"), [(".page.uge", write_file), ("page", append)], ids=["write", "append"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_another_name_of_a_file_in_the_place_of_ours_is_not_written_to(
    tmp_path: Path, link: Callable[..., None], name: str, write: Callable[[Path, str], None]
) -> None:
    (tmp_path / "precious").write_text("precious")
    link(tmp_path / "precious", tmp_path / name)
    with refused(PublishError, "no file of yours alone" if link is os.link else "cannot write .*page"):
        write(tmp_path / "page", "x")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("private", [False, True])
def test_a_new_folder_appears_whole_and_alone(tmp_path: Path, private: bool) -> None:
    with new_folder(tmp_path / "deep" / "out", private=private) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("b")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path) == ["deep", "deep/out", "deep/out/a", "deep/out/a/b"]
    assert (mode(tmp_path / "deep" / "out") & 0o077 == 0) == private


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), KeyError()])
def test_nothing_stays_of_a_folder_that_failed(tmp_path: Path, error: BaseException) -> None:
    told = PublishError if isinstance(error, OSError) else type(error)
    with pytest.raises(told), new_folder(tmp_path / "out") as out:
        (out / "x").write_text("x")
        raise error
    assert names(tmp_path) == []


def test_every_file_of_a_folder_is_synced_before_its_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        sync(handle)

    def renamed(*paths: Path) -> None:
        done.append("renamed")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("b")
        (folder / "c").write_text("c")
    at = done.index("renamed")
    assert set(done[:at]) == {"a", "b", "c", "out"}
    assert done[at + 1 :] == [tmp_path.name]


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ("die()", []),
        ("(folder / 'x').mkdir(); die()", []),
        ("replace = os.replace; os.replace = lambda *paths: (replace(*paths), die())", ["out"]),
    ],
    ids=["begun", "half full", "renamed"],
)
def test_what_a_kill_left_beside_a_folder_is_removed(tmp_path: Path, steps: str, left: list[str]) -> None:
    killed_child(f"with new_folder('out') as folder: {steps}", tmp_path)
    assert ".out.uge" in names(tmp_path)
    assert tidy(tmp_path / "out") and not tidy(tmp_path / "out")
    assert names(tmp_path) == left
    check_target(tmp_path / "out")


def test_a_folder_that_a_killed_run_had_just_finished_is_called_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "x").touch()
    (tmp_path / ".out.uge").mkdir(mode=0o700)
    for message in ("is whole: a run that was killed had just finished it", "is not empty"):
        with pytest.raises(PublishError, match=message):
            check_target(tmp_path / "out")


def test_what_somebody_keeps_under_the_hidden_name_stays(tmp_path: Path) -> None:
    (tmp_path / ".out.uge").mkdir(mode=0o700)
    (tmp_path / ".out.uge" / "diary").write_text("dear diary")
    with new_folder(tmp_path / "out"):
        pass
    assert (tmp_path / ".out.uge" / "diary").read_text() == "dear diary"


def _hold(folder: Path, ready: Event) -> None:
    with held(folder):
        ready.set()
        time.sleep(60)


def test_of_two_at_one_folder_one_works_and_the_other_says_who_does(tmp_path: Path) -> None:
    ready = FORK.Event()
    holder = FORK.Process(target=_hold, args=(tmp_path / "work", ready), daemon=True)
    holder.start()
    assert ready.wait(60)
    told = f"is in use by process {holder.pid} on .*; wait for it"
    with refused(PublishError, told, "work"), held(tmp_path / "work"):
        pass
    holder.kill()
    holder.join()
    with held(tmp_path / "work"):  # a killed one holds nothing
        assert mode(tmp_path / "work") == 0o700


def test_a_folder_that_is_deleted_while_it_is_held_can_be_held_anew(tmp_path: Path) -> None:
    with held(tmp_path / "work"):
        remove_folder(tmp_path / "work")
        with held(tmp_path / "work"):
            assert (tmp_path / "work" / ".lock").exists()


def test_a_folder_that_the_next_takes_as_soon_as_its_lock_is_gone_is_left_to_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def taken(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == ".lock":
            path.touch()

    monkeypatch.setattr(Path, "unlink", taken)
    with held(tmp_path / "work"):
        (tmp_path / "work" / "mine").touch()
        remove_folder(tmp_path / "work")
    assert names(tmp_path) == ["work", "work/.lock"]


def _count(folder: Path) -> None:
    for _ in range(25):
        try:
            with held(folder):
                number = int((folder / "n").read_text()) if (folder / "n").exists() else 0
                write_file(folder.parent / "most", str(number))
                (folder / "n").write_text(str(number + 1))
                assert int((folder / "n").read_text()) == number + 1
                remove_folder(folder)
        except PublishError:
            continue


def test_no_two_ever_hold_a_folder_that_is_made_and_removed_all_the_time(tmp_path: Path) -> None:
    with FORK.Pool(3) as pool:
        pool.map(_count, [tmp_path / "work"] * 3)
    assert names(tmp_path) == ["most"]
    assert (tmp_path / "most").read_text() == "0"


def test_a_lock_that_is_a_link_is_refused_and_the_file_behind_it_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".lock").symlink_to(tmp_path / "precious")
    with refused(PublishError, "is a link"), held(tmp_path / "work"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_folder_is_held_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uge.locks.lock_descriptor", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with held(tmp_path / "work"):
        assert names(tmp_path / "work") == [".lock"]


@pytest.mark.parametrize("permissions", [0o777, 0o775])
def test_a_folder_that_others_could_have_filled_is_refused_as_it_is(tmp_path: Path, permissions: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(permissions)
    private_folder(folder)  # empty: nobody's
    (folder / "job").write_text("{}")
    folder.chmod(permissions)
    with pytest.raises(PublishError, match="can be written by other users"):
        private_folder(folder)
    assert mode(folder) == permissions


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(PublishError, match="belongs to user 65534"):
        private_folder(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(PublishError, match="is a link"):
        private_folder(tmp_path / "link")


def test_a_folder_is_claimed_by_one_run_which_goes_on_in_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".run.json.uge").write_text("{")  # as a killed `write_file` leaves it
    for _ in range(2):  # anew, and going on
        with claimed(out, "run.json", "mine", "a run"):
            (out / "work").touch()
            with refused(PublishError, "is in use by process"), claimed(out, "run.json", "mine", "a run"):
                pass
    with refused(PublishError, "holds a run with other data or settings"), claimed(out, "run.json", "yours", "a run"):
        pass
    assert (out / "work").exists()


def test_a_folder_of_something_else_is_refused_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "diary.txt").write_text("dear diary")
    with refused(PublishError, "is not empty and holds no run"), claimed(tmp_path, "run.json", "mine", "a run"):
        pass
    assert (names(tmp_path), mode(tmp_path)) == (["diary.txt"], 0o755)


def test_a_folder_half_removed_still_says_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run", ".lock", "a", "z"):
        (tmp_path / name).touch()
    gone: list[str] = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (gone.append(path.name), unlink(path, **how)))
    remove_folder(tmp_path, last=("run",))
    assert gone[2:] == ["run", ".lock"]
    assert not tmp_path.exists()
