"""Encrypted key files: age's format (https://age-encryption.org/v1), which anyone's `age` opens, too.

Everything is left to pyrage but the writing of files for a passphrase: pyrage sets the cost of scrypt by a stopwatch
(16 to 20 in ten calls on one busy machine: up to 1 GiB, and half a minute), and cannot be told another.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyrage
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from uge.errors import KeyFileError, told_as
from uge.outside import MOST_SETTINGS, read_file

MAGIC = b"age-encryption.org/v1\n"
ARMOUR = b"-----BEGIN AGE ENCRYPTED FILE-----"
SCRYPT = b"-> scrypt "  # what the first stanza begins with where a passphrase opens the file
LOG2_N = 17  # of scrypt: 128 MiB and a good part of a second for each guess
CHUNK = 2**16  # bytes of a payload that are encrypted at a time


def is_encrypted(data: bytes) -> bool:
    """Whether these bytes begin as a file of age does."""
    return data.startswith((MAGIC, ARMOUR))


def encrypt_by_passphrase(content: bytes, passphrase: bytes) -> bytes:
    """An age file that a passphrase opens.

    A file key, wrapped by scrypt of the passphrase, authenticates the header and encrypts the payload, chunk by chunk
    (https://age-encryption.org/v1, "scrypt recipient stanza", "header MAC" and "payload").

    Raises:
        KeyFileError: the passphrase is empty, or no text.
    """
    if not passphrase:
        raise KeyFileError("the passphrase is empty; give one, or leave the key open with --no-passphrase")
    _text(passphrase)
    file_key, salt, nonce = (secrets.token_bytes(16) for _ in range(3))
    scrypt = Scrypt(salt=b"age-encryption.org/v1/scrypt" + salt, length=32, n=1 << LOG2_N, r=8, p=1)
    wrapped = ChaCha20Poly1305(scrypt.derive(passphrase)).encrypt(bytes(12), file_key, None)
    header = MAGIC + SCRYPT + b"%s %d\n%s\n---" % (_base64(salt), LOG2_N, _base64(wrapped))
    mac = hmac.digest(_hkdf(file_key, None, b"header"), header, "sha256")
    cipher = ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload"))
    parts = [header, b" ", _base64(mac), b"\n", nonce]
    for number, begin in enumerate(range(0, max(1, len(content)), CHUNK)):
        last = begin + CHUNK >= len(content)
        parts.append(cipher.encrypt(number.to_bytes(11, "big") + bytes([last]), content[begin : begin + CHUNK], None))
    return b"".join(parts)


def encrypt_for(content: bytes, recipients: Sequence[str]) -> bytes:
    """An age file that the identity of any of the recipients opens.

    They are "age1..." or ssh public keys ("ssh-ed25519 AAAA...", "ssh-rsa AAAA...").

    Raises:
        KeyFileError: one of them is neither.
    """
    return pyrage.encrypt(content, [_recipient(each) for each in recipients])


def decrypt(data: bytes, where: str, *, passphrase: bytes | None = None, identity: Path | None = None) -> bytes:
    """The content of an age file; `where` names it in messages.

    `passphrase` opens it where it was encrypted by one. `identity` is the file of an age identity
    ("AGE-SECRET-KEY-1...") or an ssh private key, for what it was encrypted to.

    Raises:
        KeyFileError: cut short, damaged, or not to be opened with what was given.
    """
    if _wants_passphrase(data):
        if passphrase is None:
            raise KeyFileError(f"key {where} is sealed; give its passphrase (--passphrase-file FILE, or at a terminal)")
        mistake = "wrong passphrase"
        opening = partial(pyrage.passphrase.decrypt, data, _text(passphrase))
    elif identity is None:
        raise KeyFileError(
            f"key {where} is sealed for an age or ssh key; give the file of its secret part (--passphrase-file FILE)"
        )
    else:
        mistake = f"{identity} is not the identity that opens it"
        opening = partial(pyrage.decrypt, data, _identities(identity))
    try:
        return opening()
    except pyrage.DecryptError as error:
        if str(error) in ("Decryption failed", "No matching keys found"):
            raise KeyFileError(f"{mistake} for key {where}, or the file was damaged; try again") from error
        reason = " ".join(str(error).split())
        raise KeyFileError(f"key {where} is cut short or damaged ({reason}); copy it again from its source") from error


def _hkdf(key: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _wants_passphrase(data: bytes) -> bool:
    if data.startswith(ARMOUR):
        with suppress(ValueError, IndexError):  # what is no base64 is told as damage when it is opened
            data = base64.b64decode(data.splitlines()[1])
    return data.startswith(MAGIC + SCRYPT)


def _text(passphrase: bytes) -> str:
    try:
        return passphrase.decode()
    except UnicodeDecodeError as error:
        raise KeyFileError("the passphrase is no UTF-8 text; choose another") from error


def _recipient(text: str) -> Any:
    text = text.strip()
    kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
    try:
        return kind.from_str(text)
    except pyrage.RecipientError as error:
        raise KeyFileError(
            f"'{text[:40]}' is no recipient ({error}); expected age1... or a public key of ssh-keygen (ed25519 or rsa)"
        ) from error


def _identities(file: Path) -> list[Any]:
    """The secret keys in a file: of ssh-keygen, or lines of age-keygen."""
    with told_as(KeyFileError, f"cannot read identity {file}"):
        content = read_file(file, MOST_SETTINGS, links=True)
    try:
        if content.startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(content)]
        lines = [line.strip() for line in content.decode().splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (pyrage.IdentityError, UnicodeDecodeError) as error:
        raise KeyFileError(
            f"{file} holds no identity that can be used here ({error}); expected AGE-SECRET-KEY-1... or an ssh private"
            f" key; where that has a passphrase of its own, 'age -d -i {file} KEY > OPEN' makes an open key file"
        ) from error
    if not found:
        raise KeyFileError(f"{file} holds no identity; expected AGE-SECRET-KEY-1... or an ssh private key")
    return found
