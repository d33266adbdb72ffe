"""A sealed file: bytes that nobody reads or changes without the passphrase.

    file    = header | ciphertext and tag | SHA-256 of all before it
    header  = "uge-seal" | version, log2 N, r, p (1 byte each) | length of the content (8) | salt (16) | nonce (12)
    key     = scrypt(passphrase, salt, N, r, p), 32 bytes (RFC 7914)
    tag     : AES-256-GCM over the content, with the header as associated data (NIST SP 800-38D)

Anyone can recompute the checksum; it only tells damage from a wrong passphrase, before the slow step. What holds is the
tag. Salt and nonce are fresh for each file, so no key and nonce ever meet twice.
"""

from __future__ import annotations

import hashlib
import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from uge.errors import KeyFileError

MAGIC = b"uge-seal"
VERSION = 1
LOG2_N, R, P = 17, 8, 1  # 128 MiB and a good part of a second for each guess
MOST_MEMORY, MOST_P = 256 * 2**20, 4  # what a file may ask of whoever opens it
HEADER = struct.Struct(">8s4BQ16s12s")
TAG, CHECKSUM = 16, 32


def is_sealed(data: bytes) -> bool:
    """Whether these bytes begin as a sealed file does."""
    return data.startswith(MAGIC)


def seal(content: bytes, passphrase: bytes, *, log2_n: int = LOG2_N) -> bytes:
    """Encrypt and authenticate `content`.

    Args:
        content: any bytes.
        passphrase: not empty.
        log2_n: cost of the key derivation, memory and time.

    Raises:
        KeyFileError: the passphrase is empty.
    """
    if not passphrase:
        raise KeyFileError("the passphrase is empty; give one, or leave the key open with --no-passphrase")
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    header = HEADER.pack(MAGIC, VERSION, log2_n, R, P, len(content), salt, nonce)
    sealed = header + AESGCM(_derive(passphrase, salt, log2_n, R, P)).encrypt(nonce, content, header)
    return sealed + hashlib.sha256(sealed).digest()


def unseal(data: bytes, passphrase: bytes, where: str) -> bytes:
    """The content of a sealed file; `where` names it in errors.

    Raises:
        KeyFileError: cut short, damaged, edited, of another version, or sealed with another passphrase.
    """
    if len(data) < HEADER.size + TAG + CHECKSUM:
        raise KeyFileError(f"key {where} is cut short; copy it again from its source")
    header = data[: HEADER.size]
    magic, version, log2_n, r, p, length, salt, nonce = HEADER.unpack(header)
    if magic != MAGIC or version != VERSION:
        raise KeyFileError(
            f"key {where} is sealed in version {version}, this uge opens {VERSION}; use the uge that wrote it"
        )
    if len(data) != HEADER.size + length + TAG + CHECKSUM:
        raise KeyFileError(
            f"key {where} has {len(data)} bytes, expected {HEADER.size + length + TAG + CHECKSUM}: it is cut short or"
            " damaged; copy it again from its source"
        )
    if hashlib.sha256(data[:-CHECKSUM]).digest() != data[-CHECKSUM:]:
        raise KeyFileError(f"key {where} is damaged (its checksum does not match); copy it again from its source")
    if not (1 <= log2_n <= 30 and r >= 1 and 1 <= p <= MOST_P and (128 * r << log2_n) <= MOST_MEMORY):
        raise KeyFileError(
            f"key {where} asks for a key derivation (N=2^{log2_n}, r={r}, p={p}) beyond {MOST_MEMORY >> 20} MiB;"
            " it was not written by uge, do not use it"
        )
    try:
        return AESGCM(_derive(passphrase, salt, log2_n, r, p)).decrypt(nonce, data[HEADER.size : -CHECKSUM], header)
    except InvalidTag as error:
        raise KeyFileError(f"wrong passphrase for key {where}, or the file was forged; try again") from error


def _derive(passphrase: bytes, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << log2_n, r=r, p=p).derive(passphrase)
