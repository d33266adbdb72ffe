"""Files and folders that appear whole or not at all, whatever is killed, wherever the power fails.

A new file is written under a hidden name, reaches the disk, is renamed, and the rename reaches the disk. The hidden
name is always the same, `.NAME.uge`: what a kill leaves there is found and removed by the next who writes NAME. A new
folder is filled as `.NAME.uge/NAME`. Whoever is at work holds a lock, so that two never write the same thing at once.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from uge import outside
from uge.errors import PublishError, told_as
from uge.locks import LOCK, OPEN_FLAGS, check_own_file, held, is_at, lock, private_folder

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_SYNCS_AT_ONCE = 16  # the disk takes them together: ten times as fast as one by one
_SYNCS_IN_LINE = 256


def write_file(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old one or the new one, also after the power failed; its folder is made.

    The permissions are less those that the user's umask takes away.

    Raises:
        PublishError: the disk is full or the target cannot be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    work = hidden_path(path)
    with told_as(PublishError, f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _new_file(work, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
                os.replace(work, path)
        except BaseException:  # Ctrl-C, too
            work.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def append(path: Path, line: str) -> None:
    """Append a line to a file that only this process writes; it is on the disk when the call returns.

    What a kill left of a line before it stays on a line of its own.

    Raises:
        PublishError: the disk is full or the file cannot be written, or is a link.
    """
    with told_as(PublishError, f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        handle = os.open(path, OPEN_FLAGS | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(handle, "r+b") as file:
            check_own_file(handle, path)
            torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write((("\n" if torn else "") + line + "\n").encode())
            file.flush()
            os.fsync(handle)
        if new:
            sync_folder(path.parent)


@contextmanager
def new_folder(out: Path | str, *, private: bool = False) -> Iterator[Path]:
    """A folder to fill beside `out`; at the end all of it is synced and it is renamed. After a failure nothing stays.

    `out` may exist if it is empty. A private folder is its owner's alone.

    Raises:
        PublishError: the disk is full or read-only, or another process is making the same folder.
    """
    out = Path(os.path.abspath(out))  # "." has no name of its own
    work = hidden_path(out)
    with told_as(PublishError, f"cannot write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with held(work, f"{out} is being made by"):
            folder = work / out.name
            try:
                shutil.rmtree(folder, ignore_errors=True)  # of a killed run
                folder.mkdir(mode=0o700 if private else 0o777)
                yield folder
                move_into_place(folder, out)
            finally:
                _remove_work(work, folder)


def move_into_place(folder: Path, out: Path) -> None:
    """Let a folder that is whole appear as `out`: all of it reaches the disk, then it is renamed.

    Raises:
        OSError: the disk is full, or `out` is there and not empty.
    """
    sync_tree(folder)
    os.replace(folder, out)
    sync_folder(out.parent)


def check_target(out: Path | str) -> None:
    """Refuse a target that holds something already; ask before a long run, `new_folder` finds out again.

    What a killed maker of the same folder left beside it is removed.

    Raises:
        PublishError: `out` is a file, a folder that is not empty, or cannot be looked at or written.
    """
    out = Path(out)
    with told_as(PublishError, f"cannot write {out}"):
        if out.is_symlink() or os.path.ismount(out):
            raise PublishError(
                f"{out} is a link or a mount point, which a new folder cannot replace; give one below it"
            )
        if out.exists() and not out.is_dir():
            raise PublishError(f"{out} is a file; give a new folder as --out")
        unfinished = tidy(out)
        if out.exists() and any(out.iterdir()):
            if unfinished:
                raise PublishError(f"{out} is whole: a run that was killed had just finished it; use it, or remove it")
            raise PublishError(f"{out} is not empty; give a new folder as --out, or remove it")
    check_writable(out)


def tidy(out: Path | str) -> bool:
    """Remove what a killed `new_folder` left beside `out`; whether there was something.

    Raises:
        PublishError: another process is making the folder.
    """
    out = Path(os.path.abspath(out))
    work = hidden_path(out)
    if work.is_symlink() or not work.is_dir():
        return False
    with held(work, f"{out} is being made by"):
        _remove_work(work, work / out.name)
    return True


@contextmanager
def claimed(folder: Path, mark: str, content: str, what: str, differs: str = "data or settings") -> Iterator[None]:
    """Hold a folder (`held`) for one run, which may be killed and go on in it; the rest as for `claim`.

    Raises:
        PublishError: as `claim`, or another process is at work in the folder.
    """
    _is_marked(folder, mark, content, what, differs)  # before anything of it is changed
    with held(folder):
        claim(folder, mark, content, what, differs)
        yield


def claim(folder: Path, mark: str, content: str, what: str, differs: str = "data or settings") -> None:
    """Mark a folder as that of one run, and make it private.

    Args:
        folder: new, empty, or of a run with the same mark.
        mark: name of the file that says what the run is.
        content: of that file.
        what: the run, for messages: "an audit".
        differs: what another run has of its own, for messages.

    Raises:
        PublishError: the folder holds another run or anything else, or is refused by `private_folder`.
    """
    if not _is_marked(folder, mark, content, what, differs):
        private_folder(folder)
        write_file(folder / mark, content)


def _is_marked(folder: Path, mark: str, content: str, what: str, differs: str) -> bool:
    """Whether a folder is that of this run; False where it may become it."""
    file = folder / mark
    with told_as(PublishError, f"cannot read {file}"):
        if os.path.lexists(file):
            if outside.read_file(file, outside.MOST_FACTS) != content.encode():
                raise PublishError(f"{folder} holds {what} with other {differs}; give a new folder, or remove it")
            return True
        others = folder.exists() and not is_bare(folder, hidden_path(file).name)
    if others:
        nothing = f"no {what.partition(' ')[2]}"
        raise PublishError(f"{folder} is not empty and holds {nothing}; give a new folder, or remove it")
    check_writable(file)
    return False


def is_bare(folder: Path, *marks: str) -> bool:
    """Whether a folder holds nothing but its lock and files of these names."""
    return {each.name for each in folder.iterdir()} <= {LOCK, *marks}


def remove_folder(folder: Path, last: Sequence[str] = ()) -> None:
    """Remove a folder of ours with all that is in it; does nothing where there is none.

    Args:
        folder: to remove.
        last: files in it that go last, in this order and before the lock, so that a kill leaves a folder that still
            says what it is.
    """
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError:
        return
    order = {name: number for number, name in enumerate((*last, LOCK))}
    for name in sorted(names, key=lambda name: order.get(name, -1)):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):  # or the next has taken it since its lock went
            raise


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be made, before hours of work are done for it.

    Raises:
        PublishError: the nearest folder above `path` that exists is none, or is read-only.
    """
    with told_as(PublishError, f"cannot write {path}"):
        above = next(parent for parent in Path(os.path.abspath(path)).parents if parent.exists())
    if not above.is_dir():
        raise PublishError(f"cannot write {path}: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PublishError(f"cannot write {path}: {above} is read-only")


def sync_tree(folder: Path) -> None:
    """Wait until every file and folder of a tree is on the disk."""
    for place, _, files in os.walk(folder, topdown=False):
        sync_files([Path(place, name) for name in files])
        sync_folder(Path(place))


def sync_files(files: Sequence[Path]) -> None:
    """Wait until the content of these files is on the disk."""
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        for first in range(0, len(files), _SYNCS_IN_LINE):  # a pool takes in all it is given at once
            for _ in pool.map(_sync, files[first : first + _SYNCS_IN_LINE]):
                pass  # raises what a sync raised


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do so."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int = os.O_RDONLY) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(handle)


def hidden_path(path: Path) -> Path:
    """Where what will be at `path` is made: beside it, under a name that lists leave out."""
    return path.with_name(f".{path.name}.uge")


def _new_file(path: Path, mode: int) -> int:
    """A new file that this process holds a lock on; what a killed one left in its place is removed."""
    while True:
        try:
            handle = os.open(path, NEW_FILE, mode)
        except FileExistsError:
            _remove_left(path)
            continue
        lock(handle, wait=True)
        if is_at(handle, path):
            return handle
        os.close(handle)  # taken for one that a killed process left


def _remove_left(path: Path) -> None:
    """Remove a file as soon as nobody holds it."""
    try:
        handle = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return
    try:
        check_own_file(handle, path)
        lock(handle, wait=True)
        if is_at(handle, path):
            path.unlink()
    finally:
        os.close(handle)


def _remove_work(work: Path, folder: Path) -> None:
    """Remove the hidden folder of `new_folder`, but nothing else that somebody may have put there."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        if is_bare(work):
            remove_folder(work)
