"""What comes from outside: files that others wrote, and their text. Opened without waiting, bounded, and escaped.

Every file that the program reads and did not just write is opened here; a test looks for bypasses. Errors are
`OSError`s whose `strerror` is a phrase for the user ("is a pipe, expected a file"), so that a caller's
`with told_as(DataError, f"cannot read {path}")` tells all of them.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import stat
import tomllib
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeVar, cast

import msgspec

from uge.errors import ConfigError, told_as

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
MIB = 2**20
MOST_SETTINGS = MIB  # bytes of a file that a person writes: a plan, a passphrase, an identity
MOST_FACTS = 256 * MIB  # bytes of a small JSON file: the facts of a run, a row of records
MOST_WEIGHTS = 2**14 * MIB  # bytes of a file of tensors: weights, the images that workers train on
_LARGEST_INTEGER = 2**63
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link, and none is followed here"),
)


def open_file(path: Path | str, *, links: bool = False) -> BinaryIO:
    """Open a regular file for reading; anything else that may stand in its place is refused without being opened.

    Args:
        path: of the file.
        links: follow a link, as for a path that the user typed; not for what is found in a folder of others.

    Raises:
        OSError: there is no such file, it cannot be read, or it is a link, folder, pipe, socket or device.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _check_regular(os.stat(path, follow_symlinks=links), path)
        handle = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    except ValueError as error:  # a null byte, or a character that no file name takes
        raise OSError(errno.EINVAL, "is no name of a file", str(path)) from error
    try:
        _check_regular(os.fstat(handle), path)  # it may have been exchanged meanwhile
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_file(path: Path | str, most: int, *, links: bool = False) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        most: bytes that it may have.
        links: as in `open_file`.

    Raises:
        OSError: as in `open_file`, or the file is larger.
    """
    with open_file(path, links=links) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, at most {most:,} are read", str(path))
        content = file.read(size + 1)
        if len(content) != size:
            raise OSError(errno.EBUSY, "was changed while it was read", str(path))
        return content


def parse_json(content: bytes | str) -> Any:
    """JSON of somebody else.

    Raises:
        ValueError: no JSON, not UTF-8, nested too deep, or holding what other readers of JSON do not take: NaN,
            infinities, integers beyond 64 bits, halves of surrogate pairs.
    """
    if not isinstance(content, bytes | str):  # an entry of other JSON, where text was expected
        raise ValueError("no text")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        found = json.loads(text, parse_constant=_no_number, parse_float=_float, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(found, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return found


def read_json(path: Path | str) -> Any:
    """The content of a JSON file, a small one.

    Raises:
        OSError: as in `read_file`.
        ValueError: as in `parse_json`.
    """
    return parse_json(read_file(path, MOST_FACTS))


def read_npz(path: Path | str, most: int) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a small .npz file; none is read that is a pickle or asks for more than the file holds.

    The file may have `most` bytes, and its arrays together, too.

    Raises:
        OSError: as in `read_file`, or the arrays are larger.
        ValueError: no such file, or damaged.
    """
    import numpy as np

    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(read_file(path, most))) as archive:
            if (size := sum(each.file_size for each in archive.infolist())) > most:
                raise OSError(errno.EFBIG, f"unpacks to {size:,} bytes, at most {most:,} are read", str(path))
            for name in archive.namelist():
                stream = io.BytesIO(archive.read(name))
                header = np.lib.format.read_array_header_1_0
                if np.lib.format.read_magic(stream) != (1, 0):
                    header = np.lib.format.read_array_header_2_0
                shape, columns, dtype = header(stream)
                content = stream.read()
                if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content):
                    raise ValueError(f"the array {name} is a pickle, or not as large as it says")
                array = np.frombuffer(content, dtype).reshape(shape, order="F" if columns else "C")
                arrays[name.removesuffix(".npy")] = array
    except OSError:
        raise
    except Exception as error:  # zip files and headers, which are text that is parsed, raise errors of every type
        raise ValueError(f"damaged: {error}") from error
    return arrays


def typed(value: Any, kind: type[T]) -> T:
    """JSON or TOML of somebody else as what it has to be: a dataclass, a `msgspec.Struct`, or a type.

    What a dataclass does not name is left out; numbers are not taken from text, nor true for 1.

    Raises:
        ValueError: "hackers[0].networks: Expected array, got str".
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        told, _, where = str(error).replace("`", "").partition(" - at $")
        raise ValueError(f"{where.lstrip('.')}: {told}" if where else told) from error


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file that a user wrote; `what` it should hold is for messages.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """
    with told_as(ConfigError, f"cannot read {what} {file}"):
        content = read_file(file, MOST_SETTINGS, links=True)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not TOML, or not text at all
        raise ConfigError(f"{file} is no TOML file: {str(error)[:120]}") from error


def inside(root: Path, name: str) -> Path:
    """Where a file lies that a table or a manifest names, "a/b.png", below its root.

    Raises:
        OSError: the name is absolute, of Windows, empty or leads out of the root, itself or by a link.
    """
    parts = PurePosixPath(name).parts
    windows = PureWindowsPath(name)
    if not parts or ".." in parts or name.startswith("/") or windows.drive or windows.root or "\0" in name:
        raise OSError(errno.EPERM, "is no name of a file below the folder", name)
    path = root / name
    if not os.path.realpath(path).startswith(os.path.realpath(root).rstrip(os.sep) + os.sep):
        raise OSError(errno.EPERM, "is a link that leads out of the folder", name)
    return path


def printable(text: str) -> str:
    r"""Text of others as a terminal may show it, on one line: "a\nb" becomes "a\x0ab".

    Escaped are control and format characters (those that turn the direction of text, too), the separators of lines,
    halves of surrogate pairs, and what has no meaning yet.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def with_texts(data: T, change: Callable[[str], str]) -> T:
    """The same with every text in it as `change` gives it, wherever it stands."""
    if isinstance(data, str):
        return cast(T, change(data))
    if isinstance(data, dict):
        return cast(T, {with_texts(name, change): with_texts(value, change) for name, value in data.items()})
    if isinstance(data, list | tuple):
        return cast(T, type(data)(with_texts(each, change) for each in data))
    return data


def shown(data: T) -> T:
    """The same with every text in it as `printable` gives it."""
    return with_texts(data, printable)


def escaped_markdown(text: str) -> str:
    """Text of others within a line or a cell of Markdown: no link, picture, HTML, table, code or emphasis of theirs."""
    text = re.sub(r"[\\`*<>&\[\]|@]", lambda found: f"&#{ord(found[0])};", printable(text))
    return re.sub(r"(?<=//)|(?<=www)(?=\.)", "\u200b", text, flags=re.IGNORECASE)  # no address that is made a link


def csv_cell(value: object) -> object:
    """A value as a spreadsheet may read it: text that would be a formula is quoted by an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def _shown(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _check_regular(found: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for of_kind, name in _KINDS if of_kind(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"is {kind}" + ("" if "link" in kind else ", expected a file"), str(path))


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text[:20])


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 20 else _LARGEST_INTEGER
    return number if abs(number) < _LARGEST_INTEGER else _no_number(text[:20])
