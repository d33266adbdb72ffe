from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

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
    writers = [FORK.Process(target=_write_often, args=(target, text)) for text in "abc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if target.exists():
            text = target.read_text()
            assert len(text) == 10_000 and len(set(text)) == 1
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == ["page"]


def test_a_link_in_the_place_of_a_hidden_file_leads_nowhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for link in (".page.uge", "log"):
        (tmp_path / link).symlink_to(precious)
    with pytest.raises(PublishError):
        write_file(tmp_path / "page", "x")
    with pytest.raises(PublishError):
        append(tmp_path / "log", "x")
    assert precious.read_text() == "precious"


def test_a_second_name_of_another_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    os.link(tmp_path / "precious", tmp_path / "log")
    with pytest.raises(PublishError, match="no file of yours alone"):
        append(tmp_path / "log", "x")
    assert (tmp_path / "precious").read_text() == "precious"


def test_lines_are_appended_after_a_torn_one(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lines"
    append(file, "one")
    with file.open("a") as stream:
        stream.write("to")
    append(file, "two")
    append(file, "three")
    assert file.read_text() == "one\nto\ntwo\nthree\n"


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
    with (
        pytest.raises(PublishError if isinstance(error, OSError) else type(error)),
        new_folder(tmp_path / "out") as out,
    ):
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


@pytest.mark.parametrize("where", ["folder.mkdir()", "(folder / 'x').mkdir()", "os.replace(folder, out)"])
def test_what_a_kill_left_beside_a_folder_is_removed(tmp_path: Path, where: str) -> None:
    code = "out = Path('out').absolute()\nwith new_folder(out) as folder:\n"
    steps = {"folder.mkdir()": "", "(folder / 'x').mkdir()": " (folder / 'x').mkdir()\n"}
    renamed = " replace = os.replace\n os.replace = lambda *paths: (replace(*paths), die())\n"
    last = renamed if where.startswith("os.replace") else steps[where] + " die()\n"
    killed_child(code + last, tmp_path)
    assert ".out.uge" in names(tmp_path)
    assert tidy(tmp_path / "out") and not tidy(tmp_path / "out")
    assert names(tmp_path) == (["out"] if where.startswith("os.replace") else [])
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


def test_of_two_at_one_folder_one_works_and_the_other_says_who_does(tmp_path: Path) -> None:
    code = "with held(Path('work')):\n Path('there').touch()\n time.sleep(60)"
    start = "import time\nfrom pathlib import Path\nfrom uge.locks import held\n"
    child = subprocess.Popen([sys.executable, "-c", start + code], cwd=tmp_path)
    try:
        while not (tmp_path / "there").exists():
            time.sleep(0.02)
        with (
            refused(PublishError, f"is in use by process {child.pid} on .*; wait for it", "work"),
            held(tmp_path / "work"),
        ):
            pass
    finally:
        child.kill()
        child.wait()
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
    workers = [FORK.Process(target=_count, args=(tmp_path / "work",)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert names(tmp_path) == ["most"]
    assert (tmp_path / "most").read_text() == "0"


def test_a_lock_that_is_a_link_is_refused_and_the_file_behind_it_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".lock").symlink_to(tmp_path / "precious")
    with refused(PublishError, "is a link"), held(tmp_path / "work"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_private_folder_is_made_private_before_anything_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o755)
    for name in ("old", "new"):
        private_folder(tmp_path / name)
        assert mode(tmp_path / name) == 0o700


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
