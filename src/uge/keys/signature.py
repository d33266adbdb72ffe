"""Ed25519 signatures (RFC 8032): who published a folder.

A verification key that travels with the folder proves nothing, for whoever forges the folder forges it too. What
counts is its fingerprint, which the recipient holds in the key file.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def new_signer() -> dict[str, Any]:
    """What a key holds of whoever publishes: 32 secret bytes from the operating system, and their fingerprint."""
    signing_key = Ed25519PrivateKey.generate().private_bytes_raw()
    return {"fingerprint": signer_of(signing_key), "signing_key": signing_key}


def signer_of(signing_key: bytes) -> str:
    """The fingerprint that goes with a signing key."""
    return fingerprint_of(Ed25519PrivateKey.from_private_bytes(signing_key).public_key().public_bytes_raw())


def fingerprint_of(public_key: bytes) -> str:
    """SHA-256 of a public key, hexadecimal."""
    return hashlib.sha256(public_key).hexdigest()


def sign(signing_key: bytes, message: bytes) -> tuple[bytes, bytes]:
    """The 32 bytes that check it, and 64 bytes; the same key and message always give the same."""
    private = Ed25519PrivateKey.from_private_bytes(signing_key)
    return private.public_key().public_bytes_raw(), private.sign(message)


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the owner of `public_key` signed exactly this message."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):  # ValueError: not 32 bytes
        return False
    return True
