"""Ed25519 signatures (RFC 8032): who published a folder.

A verification key that travels with the folder proves nothing, for whoever forges the folder forges it too. What
counts is its fingerprint, which the recipient holds in the key file.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def new_signing_key() -> bytes:
    """32 secret bytes from the operating system."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key_of(signing_key: bytes) -> bytes:
    """The 32 bytes that check what `signing_key` signs."""
    return Ed25519PrivateKey.from_private_bytes(signing_key).public_key().public_bytes_raw()


def fingerprint_of(public_key: bytes) -> str:
    """SHA-256 of a public key, hexadecimal."""
    return hashlib.sha256(public_key).hexdigest()


def sign(signing_key: bytes, message: bytes) -> bytes:
    """64 bytes; the same key and message always give the same."""
    return Ed25519PrivateKey.from_private_bytes(signing_key).sign(message)


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the owner of `public_key` signed exactly this message."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):  # ValueError: not 32 bytes
        return False
    return True
