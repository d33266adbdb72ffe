"""Where and how a run happens: device, random seeds, files that are never half-written."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from uge.errors import ConfigError, PublishError

T = TypeVar("T")
_FOLDERS = re.compile(
    r"""(?:(?<=[=:,+\s("'])|^)(?:file://)?(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?![/\\\s])(?:[^/\\,+]+[/\\])*"""  # /a/b/, ../a/
    r"|(?:(?<=data=)|(?<=own-pairs:)|(?<=candidates:))(?!hub:|https?:)(?:[^/\\,+=]+[/\\])+"  # a/b/, where a path may be
    r"|(?<=clip:)(?:[^/\\,+]+[/\\]){2,}"  # a/b/, but not the OWNER/NAME of a hub
)


def resolve_device(name: str = "auto") -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:1" into a device; "auto" takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError
    except RuntimeError as error:
        raise ConfigError(f"unknown device '{name}'; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' asked for, but this torch sees no GPU; use --device cpu")
    return device


@contextmanager
def repeatable() -> Iterator[None]:
    """Inside, cuDNN uses only kernels that add up in the same order every time: the same seed, the same bits."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def seed_for(seed: int, *names: object) -> int:
    """A seed of its own for each named purpose, so that adding one never changes another.

    Args:
        seed: the user's one seed.
        names: the purpose, such as `("attack", "vgg", 2)`.

    Returns:
        An integer in [0, 2**63), the same on every machine and in every release.
    """
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """An explicit torch generator for one named purpose (see `seed_for`)."""
    return torch.Generator(device=device).manual_seed(seed_for(seed, *names))


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Facts about this machine that a record needs: versions and hardware, no names and no paths.

    Args:
        device: where the work was done.
    """
    from uge import __version__

    return {
        "uge": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be made, before hours of work are done for it.

    Raises:
        PublishError: the nearest folder above `path` that exists is none, or is read-only.
    """
    try:
        above = next(parent for parent in Path(os.path.abspath(path)).parents if parent.exists())
    except OSError as error:
        raise PublishError(f"cannot write {path}: {error.strerror or error}") from error
    if not above.is_dir():
        raise PublishError(f"cannot write {path}: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PublishError(f"cannot write {path}: {above} is read-only")


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file that a user wrote.

    Args:
        file: to read.
        what: it should hold, for messages.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {what} {file}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not text at all
        raise ConfigError(f"{file} is no TOML file: {error}") from error


@contextmanager
def exclusive(file: Path, taken: str) -> Iterator[None]:
    """Hold a file that one process at a time can hold; it may lie in a folder that is deleted meanwhile.

    Raises:
        PublishError: another process holds it; `taken` is the message.
    """
    with file.open("w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on this system: two at a time only waste work
            pass
        except OSError as error:
            raise PublishError(taken) from error
        yield


def without_folders(data: T) -> T:
    """The same without the folders of local paths, wherever these stand in it: "clip:/home/x/m" -> "clip:m"."""
    if isinstance(data, str):
        return cast(T, _FOLDERS.sub("", data))
    if isinstance(data, dict):
        return cast(T, {name: without_folders(value) for name, value in data.items()})
    if isinstance(data, list | tuple):
        return cast(T, type(data)(without_folders(value) for value in data))
    return data


def claim_folder(folder: Path, mark: str, content: str, what: str) -> None:
    """Mark a folder as that of one run, which may be killed and go on in it.

    Args:
        folder: new, empty, or of a run with the same mark.
        mark: name of the file that says what the run is.
        content: of that file.
        what: the run in a word, for messages.

    Raises:
        PublishError: the folder holds another run or anything else, or cannot be written.
    """
    file = folder / mark
    if file.exists():
        if file.read_text() != content:
            raise PublishError(f"{folder} holds another {what}; give a new folder as --out, or remove it")
        return
    others = folder.exists() and (
        not folder.is_dir() or any(not each.name.startswith(f".{mark}.") for each in folder.iterdir())
    )  # a kill may have left the mark under its temporary name
    if others:
        raise PublishError(f"{folder} is not empty and holds no {what}; give a new folder as --out, or remove it")
    check_writable(file)
    write_atomically(file, content)


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_atomically(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Write a file under a temporary name, then rename it: a reader sees the old file or the new one.

    Args:
        path: of the file; its folder is made.
        content: all of it.
        mode: permissions, less those that the user's umask takes away.

    Raises:
        PublishError: the disk is full or the target cannot be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = str(path.with_name(f".{path.name}.{secrets.token_hex(6)}"))
        handle = os.open(name, _NEW_FILE, mode)
        temporary = name
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise PublishError(f"cannot write {path}: {error.strerror or error}") from error
    finally:  # after the rename there is nothing to remove; after an error or Ctrl-C there is
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
