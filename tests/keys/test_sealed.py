"""A sealed file opens with its passphrase and as it was written, or not at all."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uge.errors import KeyFileError
from uge.keys.sealed import CHECKSUM, HEADER, TAG, is_sealed, seal, unseal

CHEAP = 4  # log2 N: the bytes are the same whatever the cost
CONTENT = b"the secret of a key, and more of it"
SEALED = seal(CONTENT, b"open sesame", log2_n=CHEAP)


def refused(data: bytes, passphrase: bytes = b"open sesame") -> str:
    with pytest.raises(KeyFileError) as error:
        unseal(data, passphrase, "the.key")
    assert "\n" not in str(error.value) and "the.key" in str(error.value)
    return str(error.value)


def with_checksum(data: bytes | bytearray) -> bytes:
    """What a forger writes, who can recompute a checksum."""
    return bytes(data[:-CHECKSUM]) + hashlib.sha256(data[:-CHECKSUM]).digest()


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.binary(min_size=1, max_size=40))
def test_round_trip(content: bytes, passphrase: bytes) -> None:
    data = seal(content, passphrase, log2_n=CHEAP)
    assert is_sealed(data)
    assert unseal(data, passphrase, "the.key") == content


def test_the_default_cost_is_opened() -> None:
    assert unseal(seal(CONTENT, b"x"), b"x", "the.key") == CONTENT


def test_nothing_of_the_content_shows_and_no_two_files_are_alike() -> None:
    again = seal(CONTENT, b"open sesame", log2_n=CHEAP)
    assert all(CONTENT[i : i + 4] not in SEALED for i in range(len(CONTENT) - 3))
    body = slice(HEADER.size, -CHECKSUM)
    assert (
        again[body] != SEALED[body] and again[HEADER.size - 28 : HEADER.size] != SEALED[HEADER.size - 28 : HEADER.size]
    )


@pytest.mark.parametrize("passphrase", [b"open sesamf", b"open sesame ", b"", b"\x00"])
def test_a_wrong_passphrase(passphrase: bytes) -> None:
    assert "wrong passphrase" in refused(SEALED, passphrase)


def test_an_empty_passphrase_seals_nothing() -> None:
    with pytest.raises(KeyFileError, match="passphrase is empty"):
        seal(CONTENT, b"")


@pytest.mark.parametrize("place", range(len(SEALED)))
def test_every_flipped_byte_is_refused(place: int) -> None:
    for change in (1, 0x80, 0xFF):
        edited = bytearray(SEALED)
        edited[place] ^= change
        refused(bytes(edited))
        if place < len(SEALED) - CHECKSUM:
            refused(with_checksum(edited))


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_every_truncation_is_refused(length: int) -> None:
    assert "wrong passphrase" not in refused(SEALED[:length])
    if length > CHECKSUM:
        refused(with_checksum(SEALED[:length]))


def test_more_than_the_file_is_refused() -> None:
    assert "expected" in refused(SEALED + b"\x00")


@pytest.mark.parametrize(
    ("log2_n", "r", "p"), [(30, 8, 1), (22, 1, 1), (255, 8, 1), (17, 255, 1), (4, 1, 255), (0, 8, 1), (4, 0, 1)]
)
def test_a_file_cannot_ask_for_any_amount_of_memory_or_time(log2_n: int, r: int, p: int) -> None:
    fields = list(HEADER.unpack(SEALED[: HEADER.size]))
    fields[2:5] = log2_n, r, p
    data = with_checksum(HEADER.pack(*fields) + SEALED[HEADER.size :])
    if log2_n == 22:
        assert 128 * r << log2_n > 256 * 2**20
    tracemalloc.start()
    assert "not written by uge" in refused(data)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_another_version() -> None:
    edited = bytearray(SEALED)
    edited[8] = 7
    assert "version 7" in refused(with_checksum(edited))


def test_the_layout_is_the_one_that_is_documented() -> None:
    assert SEALED[:8] == b"uge-seal" and HEADER.size == 48
    assert len(SEALED) == HEADER.size + len(CONTENT) + TAG + CHECKSUM
