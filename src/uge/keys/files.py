"""The two files of a key: NAME.protector.uge and NAME.recipient.uge, open or encrypted (`age.py`).

They appear together or not at all, and nothing is ever overwritten. Both are written under hidden names first. Then
the protector's file is linked to its name, which only one process can do, and the recipient's is renamed, the last
change of all. The hidden name of the recipient's file holds a hash of the protector's: after a kill between the two
this says that the protector's file beside it is half a pair, which the next one who makes a key of that name removes.
Makers hold a lock on the folder, so that what one of them finds there is not another's work.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from uge.durable import NEW_FILE, sync_folder
from uge.errors import KeyFileError, told_as
from uge.keys import age
from uge.keys.key import Key
from uge.keys.sealed import SealedKey
from uge.keys.weights import WeightsKey
from uge.outside import MOST_WEIGHTS, read_file

Pair = tuple[Path, Path]  # the protector's file, the recipient's


def save_key(key: Key, name: Path | str, *, passphrase: bytes | None = None, to: Sequence[str] = ()) -> Pair:
    """Write NAME.protector.uge (may publish) and NAME.recipient.uge (may learn), readable by their owner only.

    Args:
        key: with its signing key.
        name: of the pair.
        passphrase: encrypts both files; None leaves them open to whoever gets hold of them.
        to: "age1..." or ssh public keys that the recipient's file is encrypted for, in the place of the passphrase.

    Returns:
        The protector's file and the recipient's.

    Raises:
        KeyFileError: one of them exists (a key is never overwritten), the place cannot be written, the key is a
            recipient's, or nothing can be encrypted with what was given.

    Example:
        >>> for file in uge.save_key(key, "copy", passphrase=b"correct horse"):
        ...     print(file)
        copy.protector.uge
        copy.recipient.uge
    """
    pair = pair_of(name)
    with told_as(KeyFileError, f"cannot write {pair[0]}"):
        pair[0].parent.mkdir(parents=True, exist_ok=True)
        with _locked(pair[0].parent) as alone:
            if alone:
                _tidy(pair)
            for path in pair:
                if os.path.lexists(path):
                    raise _taken(path)
            first = _encrypted(key.to_bytes("protector"), passphrase, ())
            _write_pair(pair, (first, _encrypted(key.to_bytes("recipient"), passphrase, to)))
    return pair


def pair_of(name: Path | str) -> Pair:
    """NAME.protector.uge and NAME.recipient.uge; "." has no name of its own to put that behind."""
    name = name if Path(name).name not in ("", "..") else os.path.abspath(name)
    return Path(f"{name}.protector.uge"), Path(f"{name}.recipient.uge")


def load_key(
    path: Path | str, *, role: str | None = None, passphrase: bytes | None = None, identity: Path | None = None
) -> Key:
    """Read a key file.

    Args:
        path: either file of the pair.
        role: "protector" or "recipient" where only that one will do.
        passphrase: opens a file that was encrypted by one; an open file needs none.
        identity: file of the age or ssh secret key, for a file that was encrypted to its public part.

    Raises:
        KeyFileError: missing, no key, damaged, encrypted, of another format version, or of the other role.

    Example:
        >>> recipient = uge.load_key("copy.recipient.uge", passphrase=b"correct horse")
        >>> recipient.fingerprint == key.fingerprint
        True
    """
    data = _read(path)
    if age.is_encrypted(data):
        data = age.decrypt(data, str(path), passphrase=passphrase, identity=identity)
    return key_from(data, str(path), role)


def key_from(data: bytes, where: str, role: str | None = None) -> Key:
    """The key of a file's content, no longer encrypted; `where` names it in messages.

    Raises:
        KeyFileError: as `load_key`.
    """
    kind = SealedKey if data.startswith(b"{") else WeightsKey
    return kind.from_bytes(data, where, role)


def is_sealed(path: Path | str) -> bool:
    """Whether a key file is encrypted.

    Raises:
        KeyFileError: it cannot be read.
    """
    return age.is_encrypted(_read(path))


def _read(path: Path | str) -> bytes:
    with told_as(KeyFileError, f"cannot read key {path}"):
        return read_file(path, MOST_WEIGHTS, links=True)


def _encrypted(content: bytes, passphrase: bytes | None, to: Sequence[str]) -> bytes:
    if to:
        return age.encrypt_for(content, to)
    return content if passphrase is None else age.encrypt_by_passphrase(content, passphrase)


def _taken(path: Path) -> KeyFileError:
    return KeyFileError(f"{path} exists, and a key is never overwritten; choose another name or move it away")


def _write_pair(pair: Pair, contents: Sequence[bytes]) -> None:
    """Both files, or neither.

    Raises:
        KeyFileError: one of them is there.
        OSError: they cannot be written.
    """
    protector, recipient = pair
    token = _token(contents[0])
    hidden = [_hidden(path, token) for path in pair]
    named = False
    try:
        for path, content in zip(hidden, contents, strict=True):
            _write_new(path, content)
        try:
            os.link(hidden[0], protector)
        except FileExistsError as error:
            raise _taken(protector) from error
        except OSError:  # a file system without links
            _write_new(protector, contents[0])
        named = True
        hidden[0].unlink()
        sync_folder(protector.parent)  # nor does the power fail between the two
        if os.path.lexists(recipient):
            raise _taken(recipient)
        os.rename(hidden[1], recipient)  # from here on it is a pair
    except BaseException:  # Ctrl-C, too
        if named and hidden[1].exists():
            protector.unlink()
        for path in hidden:
            path.unlink(missing_ok=True)
        raise
    sync_folder(protector.parent)


def _tidy(pair: Pair) -> None:
    """Remove what killed makers left: hidden files, and a protector's file that is certainly half a pair.

    It is, where the hidden name of a recipient's file holds its hash: that file was never renamed.
    """
    for path in pair:
        names = re.compile(re.escape(f".{path.name}.") + "([0-9a-f]{12})")
        for token in {found[1] for each in path.parent.iterdir() if (found := names.fullmatch(each.name))}:
            if path == pair[1] and pair[0].is_file() and _token(_read(pair[0])) == token:
                pair[0].unlink()
            _hidden(path, token).unlink()


def _token(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _hidden(path: Path, token: str) -> Path:
    return path.with_name(f".{path.name}.{token}")


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet, for its owner alone."""
    handle = os.open(path, NEW_FILE, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keep other makers of keys out of a folder; False where this system has no such locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        alone = False
        with suppress(OSError):
            alone = lock_descriptor(handle)
        yield alone
    finally:
        os.close(handle)
