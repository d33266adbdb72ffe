"""Whose a folder is: one process at a time, one user, and no link in the place of what is ours."""

from __future__ import annotations

import errno
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from uge import outside
from uge.errors import PublishError

LOCK = ".lock"
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_MOST_LOCK = 200  # bytes: who holds it


@contextmanager
def held(folder: Path, taken: str | None = None) -> Iterator[None]:
    """Hold a folder, made where there is none, for one process: private (0700), this user's own, locked until its end.

    `taken` begins the message where another process holds it, before who does.

    Raises:
        PublishError: another process holds it, or `private_folder` refuses it.
    """
    while True:
        private_folder(folder)
        file = folder / LOCK
        try:
            handle = os.open(file, OPEN_FLAGS, 0o600)
        except FileNotFoundError:  # deleted by the one who held it
            continue
        except OSError as error:
            reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or error
            raise PublishError(f"cannot write {file}: {reason}") from error
        try:
            check_own_file(handle, file)
            if not lock(handle, wait=False):
                who = os.read(handle, _MOST_LOCK).decode(errors="replace").strip() or "another process"
                message = taken or f"{folder} is in use by"
                raise PublishError(f"{message} {outside.printable(who)}; wait for it, or give another --out")
            if not is_at(handle, file):
                continue
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode()[:_MOST_LOCK])
            yield
            return
        finally:
            os.close(handle)


def private_folder(folder: Path) -> None:
    """Make a folder that only this user can look into, or make an own one so.

    Raises:
        PublishError: it is a link or a file, belongs to another user, or others could write in it and it is not empty,
            so that what is in it may be theirs; or it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode):
            raise PublishError(f"{folder} is a link, and what is private goes into no folder behind one; give its own")
        if hasattr(os, "getuid") and found.st_uid != os.getuid():
            raise PublishError(
                f"{folder} belongs to user {found.st_uid}, not to you ({os.getuid()}), who could change what is read"
                " from it; give a new folder"
            )
        if hasattr(os, "getuid") and found.st_mode & 0o077:
            os.chmod(folder, 0o700)
            if found.st_mode & 0o022 and any(folder.iterdir()):
                os.chmod(folder, stat.S_IMODE(found.st_mode))
                raise PublishError(
                    f"{folder} can be written by other users, and what is in it may be theirs; give a new folder, or"
                    " run chmod go-w on it if all of it is yours"
                )
    except FileExistsError as error:
        raise PublishError(f"{folder} is a file; give a new folder") from error
    except OSError as error:
        raise PublishError(f"cannot write {folder}: {error.strerror or error}") from error


def lock(handle: int, *, wait: bool) -> bool:
    """Whether this process has the lock of an open file now; True on a file system without locks."""
    try:
        return lock_descriptor(handle, blocking=wait)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def check_own_file(handle: int, path: Path) -> None:
    """Refuse what another user put in the place of a file of ours, a second name of another file included."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise PublishError(f"{path} is no file of yours alone; remove it, or give another folder")
