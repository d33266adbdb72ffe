"""The two files of a key: whole or not there, never overwritten, and files of age where they are encrypted."""

from __future__ import annotations

import base64
import errno
import multiprocessing
import os
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors

from uge.errors import KeyFileError
from uge.keys import Key, SealedKey, age, is_sealed, load_key, save_key
from uge.keys.files import key_from
from uge.keys.key import FORMAT_VERSION
from uge.keys.sealed import BEGINNING

from ..copy.copies import make_set, weights_key
from ..refusals import refused

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["sealed", "initial-weights"])
def key(request: Any) -> Key:
    return SealedKey.draw() if request.param == "sealed" else weights_key(make_set())


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases cost less work."""
    monkeypatch.setattr(age, "LOG2_N", 10)


def test_the_two_files(key, tmp_path):
    protector, recipient = save_key(key, tmp_path / "deep" / "mine")
    assert (protector.name, recipient.name) == ("mine.protector.uge", "mine.recipient.uge")
    for path in (protector, recipient):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_nlink == 1 and not is_sealed(path)
        assert load_key(path).digest() == key.digest() and load_key(path).kind == key.kind
        assert load_key(path, passphrase=b"not needed").digest() == key.digest()
    assert sorted(os.listdir(tmp_path / "deep")) == [protector.name, recipient.name]  # no temporary file stays
    load_key(protector, role="protector")
    load_key(recipient, role="recipient")
    for path, role in ((recipient, "protector"), (protector, "recipient")):
        with refused(KeyFileError, rf"this needs the {role}'s \(NAME.{role}.uge\)"):
            load_key(path, role=role)


def test_another_format_version(key):
    edited = key.to_bytes("protector").replace(b'": %d' % FORMAT_VERSION, b'": 9', 1)  # the first of its facts
    with refused(KeyFileError, f"the.key has format version 9, this uge reads {FORMAT_VERSION}"):
        key.from_bytes(edited, "the.key")


def test_the_signing_key_of_another_pair_is_refused(key):
    with refused(KeyFileError, "use the files of one pair"):
        replace(key, signing_key=SealedKey.draw().signing_key)


def test_a_passphrase_encrypts_both_and_anyones_age_opens_them(tmp_path):
    key = SealedKey.draw()
    protector, recipient = save_key(key, tmp_path / "mine", passphrase="öffne dich".encode())
    for path in (protector, recipient):
        assert is_sealed(path) and stat.S_IMODE(path.stat().st_mode) == 0o600
        kind, _, cost = path.read_bytes().split(b"\n")[1].split()[1:]
        assert (kind, cost) == (b"scrypt", b"17")
    assert load_key(protector, passphrase="öffne dich".encode()).signing_key == key.signing_key
    assert pyrage.passphrase.decrypt(recipient.read_bytes(), "öffne dich") == key.to_bytes("recipient")


def test_an_encrypted_file_needs_its_passphrase(tmp_path, cheap):
    for path in save_key(SealedKey.draw(), tmp_path / "mine", passphrase=b"open sesame"):
        load_key(path, passphrase=b"open sesame")
        for passphrase, words in ((None, r"is sealed; give its passphrase \(--pass"), (b"simsim", "wrong passphrase")):
            with refused(KeyFileError, words, str(path)):
                load_key(path, passphrase=passphrase)


@pytest.mark.parametrize("length", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_files_of_any_length_are_those_of_age(length, cheap):
    content = os.urandom(length)
    data = age.encrypt_by_passphrase(content, b"open sesame")
    assert data.startswith(b"age-encryption.org/v1\n-> scrypt ")
    assert pyrage.passphrase.decrypt(data, "open sesame") == content
    assert age.encrypt_by_passphrase(content, b"open sesame")[40:] != data[40:]


def armoured(data: bytes) -> bytes:
    """As `age --armor` writes it."""
    text = base64.b64encode(data)
    lines = [text[begin : begin + 64] for begin in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN AGE ENCRYPTED FILE-----", *lines, b"-----END AGE ENCRYPTED FILE-----", b""])


def test_a_file_that_age_encrypted_anew_is_a_key_too(tmp_path, cheap):
    key, path = SealedKey.draw(), tmp_path / "mine.recipient.uge"
    (public, identity), content = age_pair(tmp_path), key.to_bytes("recipient")
    path.write_bytes(armoured(pyrage.encrypt(content, [pyrage.x25519.Recipient.from_str(public)])))
    assert is_sealed(path) and load_key(path, identity=identity).digest() == key.digest()
    path.write_bytes(armoured(age.encrypt_by_passphrase(content, b"pw")))
    assert is_sealed(path) and load_key(path, passphrase=b"pw").digest() == key.digest()
    path.write_bytes(path.read_bytes()[:35])
    with refused(KeyFileError, "damaged"):
        load_key(path, identity=identity)


def age_pair(folder: Path) -> tuple[str, Path]:
    identity = pyrage.x25519.Identity.generate()
    file = folder / "age.txt"
    file.write_text(f"# created: today\n# public key: {identity.to_public()}\n{identity}\n")
    return str(identity.to_public()), file


def ssh_pair(folder: Path) -> tuple[str, Path]:
    secret = Ed25519PrivateKey.generate()
    file = folder / "id_ed25519"
    file.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = secret.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return public.decode() + " somebody@somewhere\n", file


@pytest.mark.parametrize("pair", [age_pair, ssh_pair])
def test_a_recipients_file_can_be_for_an_age_or_ssh_key(key, pair, tmp_path):
    public, identity = pair(tmp_path)
    protector, recipient = save_key(key, tmp_path / "mine", to=[public])
    assert load_key(protector).digest() == key.digest()  # open: there was no passphrase
    assert is_sealed(recipient) and stat.S_IMODE(recipient.stat().st_mode) == 0o600
    assert load_key(recipient, role="recipient", identity=identity).digest() == key.digest()
    for options in ({}, {"passphrase": b"open sesame"}):
        with refused(KeyFileError, r"for an age or ssh key; .*--passphrase-file FILE"):
            load_key(recipient, **options)
    (tmp_path / "other").mkdir()
    with refused(KeyFileError, "is not the identity that opens it"):
        load_key(recipient, identity=pair(tmp_path / "other")[1])


def test_several_recipients_share_a_file_and_the_protectors_has_the_passphrase(tmp_path, cheap):
    key = SealedKey.draw()
    (tmp_path / "b").mkdir()
    pairs = [age_pair(tmp_path), ssh_pair(tmp_path), age_pair(tmp_path / "b")]
    protector, recipient = save_key(key, tmp_path / "mine", passphrase=b"pw", to=[public for public, _ in pairs])
    for _, identity in pairs:
        assert load_key(recipient, identity=identity).digest() == key.digest()
    assert load_key(protector, passphrase=b"pw", identity=pairs[0][1]).signing_key == key.signing_key


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"passphrase": b""}, "passphrase is empty"),
        ({"passphrase": b"\xff\xfe"}, "no UTF-8 text"),
        *(
            ({"to": [to]}, f"'{to}' is no recipient")
            for to in ("age1junk", "ssh-ed25519 junk", "ssh-dss AAAA", "somebody", "", "AGE-SECRET-KEY-1X")
        ),
    ],
)
def test_a_passphrase_or_recipient_that_is_none_is_named(options, words, tmp_path):
    with refused(KeyFileError, words):
        save_key(SealedKey.draw(), tmp_path / "mine", **options)
    assert not os.listdir(tmp_path)


LOCKED = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABDREehs50
pQNtqaDRxfB6E1AAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIHtqk9ilip94WAvT
0sdeHrgLFXX6FQerUgQzXfpePV9iAAAAkMhQ6affL8buRk1YDtoMqarzdgooXOpPBb0c7T
aHHZRDSKTP6phnREawjzhLwhSCQTPXTSU7HGSiQl9//dCgHXe7LRaqRUXqtls7tY1Y8B/L
aYB7DCwiOdYnKOg7xAjswhtjmUJjW9mmhKjzlRtiMtABde35WBxC/pUCRDoAuDfwGRVEiV
Oa8++AwBr4pAH1nA==
-----END OPENSSH PRIVATE KEY-----
"""  # made by ssh-keygen for this test, with a passphrase


def test_an_identity_that_is_none_is_named(tmp_path):
    recipient = save_key(SealedKey.draw(), tmp_path / "mine", to=[age_pair(tmp_path)[0]])[1]
    (tmp_path / "text").write_text("no identity")
    (tmp_path / "comments").write_text("# nothing\n")
    (tmp_path / "pem").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\njunk\n")
    (tmp_path / "locked").write_text(LOCKED)
    told = {"locked": "where that has a passphrase of its own", "missing": "cannot read identity"}
    told |= dict.fromkeys(("text", "comments", "pem", "mine.recipient.uge"), "holds no identity")
    for name, words in told.items():
        with refused(KeyFileError, words, str(tmp_path / name)):
            load_key(recipient, identity=tmp_path / name)


FOR_AGE = pyrage.x25519.Identity.generate()
ENCRYPTED = pyrage.encrypt(SealedKey.draw().to_bytes("recipient"), [FOR_AGE.to_public()])


@pytest.fixture(scope="module")
def damaged_file(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "identity").write_text(str(FOR_AGE))
    return folder / "the.key", folder / "identity"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(ENCRYPTED) - 1), st.integers(0, 255))
def test_an_encrypted_file_that_is_edited_or_cut_does_not_open(damaged_file, place, change):
    path, identity = damaged_file
    edited = bytearray(ENCRYPTED)
    edited[place] ^= change
    path.write_bytes(bytes(edited) if change else ENCRYPTED[:place])
    with refused(KeyFileError, r"the\.key"):
        load_key(path, identity=identity)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda rest: b'{"' + rest)))
def test_any_other_bytes_are_no_key(damaged_file, data):
    damaged_file[0].write_bytes(data)
    begins_as_one = data.startswith(BEGINNING)  # then it may have been one
    told = "cut short or damaged" if begins_as_one else "(no key|sealed)"
    with refused(KeyFileError, rf"the\.key is {told}"):
        load_key(damaged_file[0])


FACTS = 2000  # bytes that hold the facts of either; tensors go on beyond
KINDS = {key.kind: key for key in (SealedKey.draw(), weights_key(make_set()))}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=500, deadline=None)
@given(st.data(), st.integers(1, 255))
def test_an_edited_byte_of_an_open_file_is_found_or_changes_nothing(kind, data, change):
    key = KINDS[kind]
    edited = bytearray(key.to_bytes("protector"))
    facts, anywhere = (st.integers(0, min(end, len(edited)) - 1) for end in (FACTS, len(edited)))
    place = data.draw(st.one_of(facts, anywhere))
    edited[place] ^= change
    try:
        found = key_from(bytes(edited), "the.key")
    except KeyFileError as error:
        assert "\n" not in str(error) and "the.key" in str(error)
        assert place < FACTS or "cut short or damaged" in str(error)
    else:  # white space between two entries, say
        assert (found.digest(), found.signing_key) == (key.digest(), key.signing_key)


def test_not_a_key_and_not_there(tmp_path):
    (tmp_path / "notes.txt").write_text("no key at all, but long enough to look at")
    (tmp_path / "manifest.json").write_text('{"format_version": "two", "images": []}')
    safetensors.save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    for name in ("notes.txt", "manifest.json", "model.safetensors"):
        with refused(KeyFileError, f"{name} is no key"):
            load_key(tmp_path / name)
    for name in ("missing.uge", "."):
        for read in (load_key, is_sealed):
            with refused(KeyFileError, "cannot read"):
                read(tmp_path / name)


@pytest.mark.parametrize("present", [("protector", "recipient"), ("protector",), ("recipient",)])
def test_a_key_is_never_overwritten(present, tmp_path):
    for path in save_key(SealedKey.draw(), tmp_path / "mine"):
        if path.name.split(".")[1] not in present:
            path.rename(tmp_path / "given away")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with refused(KeyFileError, "never overwritten", f"mine.{present[0]}.uge exists"):
        save_key(SealedKey.draw(), tmp_path / "mine")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for name in ("file/mine", f"{'x' * 300}"):
        with refused(KeyFileError, "cannot write"):
            save_key(SealedKey.draw(), tmp_path / name)
        assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("call", ["fsync", "link", "rename"])
def test_a_pair_is_written_whole_or_not_at_all(call, error, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    if call == "link" and isinstance(error, OSError):
        monkeypatch.setattr(os, "rename", fail)  # and without links, too
    monkeypatch.setattr(os, call, fail)
    with pytest.raises((KeyboardInterrupt, KeyFileError)):
        save_key(SealedKey.draw(), tmp_path / "half")
    assert not os.listdir(tmp_path)


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    key = SealedKey.draw()
    paths = save_key(key, tmp_path / "mine")
    assert {load_key(path).digest() for path in paths} == {key.digest()} and len(os.listdir(tmp_path)) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    with pytest.raises(KeyFileError, match="never overwritten"):
        save_key(SealedKey.draw(), tmp_path / "mine")


def make_many(folder: Path, barrier: Any, won: Any, names: int) -> None:
    for number in range(names):
        key = SealedKey.draw()
        barrier.wait()
        try:
            save_key(key, folder / str(number))
        except KeyFileError:
            continue
        won.put((number, key.digest()))


def test_of_several_makers_of_one_name_exactly_one_wins(tmp_path):
    makers, names = 4, 40
    barrier, won = FORK.Barrier(makers), FORK.Queue()
    processes = [FORK.Process(target=make_many, args=(tmp_path, barrier, won, names)) for _ in range(makers)]
    for process in processes:
        process.start()
    winners = [won.get(timeout=60) for _ in range(names)]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert won.empty() and sorted(number for number, _ in winners) == list(range(names))
    for number, digest in winners:
        for role in ("protector", "recipient"):
            assert load_key(tmp_path / f"{number}.{role}.uge", role=role).digest() == digest
    assert len(os.listdir(tmp_path)) == 2 * names


def make_and_die(folder: Path, call: str, count: int, after: bool) -> None:
    """Make a key, killed at the count-th call of a function of `os`, before or after it is done."""
    done, left = getattr(os, call), [count]

    def deadly(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = done(*args, **options)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, call, deadly)
    save_key(SealedKey.draw(), folder / "mine")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("call", "count"), [("fsync", 1), ("fsync", 2), ("link", 1), ("unlink", 1), ("rename", 1)])
def test_a_kill_anywhere_leaves_a_pair_or_nothing_that_blocks(call, count, after, tmp_path):
    process = FORK.Process(target=make_and_die, args=(tmp_path, call, count, after))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    protector, recipient = (tmp_path / f"mine.{role}.uge" for role in ("protector", "recipient"))
    whole = recipient.exists()
    assert whole == ((call, after) == ("rename", True))  # the last change of all
    if whole:
        first = load_key(protector).digest()
        assert load_key(recipient).digest() == first
        recipient.rename(tmp_path / "given away")  # which makes it no half pair
        with pytest.raises(KeyFileError, match=r"mine\.protector\.uge exists"):
            save_key(SealedKey.draw(), tmp_path / "mine")
        assert load_key(protector).digest() == first
        assert sorted(os.listdir(tmp_path)) == ["given away", protector.name]
    else:
        key = SealedKey.draw()
        assert {load_key(path).digest() for path in save_key(key, tmp_path / "mine")} == {key.digest()}
        assert sorted(os.listdir(tmp_path)) == [protector.name, recipient.name]


def make_slowly(folder: Path, between: Any, go_on: Any) -> None:
    rename = os.rename

    def slow(*args: Any) -> None:
        between.set()
        go_on.wait(60)
        rename(*args)

    os.rename = slow
    save_key(SealedKey.draw(), folder / "mine")


def try_to_make(folder: Path, refused: Any) -> None:
    try:
        save_key(SealedKey.draw(), folder / "mine")
    except KeyFileError:
        refused.set()


def test_half_a_pair_of_a_maker_who_is_still_at_it_is_left_to_him(tmp_path):
    between, go_on, refused = FORK.Event(), FORK.Event(), FORK.Event()
    maker = FORK.Process(target=make_slowly, args=(tmp_path, between, go_on))
    other = FORK.Process(target=try_to_make, args=(tmp_path, refused))
    maker.start()
    assert between.wait(60)
    assert (tmp_path / "mine.protector.uge").exists() and not (tmp_path / "mine.recipient.uge").exists()
    other.start()
    time.sleep(0.5)
    assert not refused.is_set() and (tmp_path / "mine.protector.uge").exists()
    go_on.set()
    for process in (maker, other):
        process.join(60)
        assert process.exitcode == 0
    assert refused.is_set()
    first, second = (load_key(tmp_path / f"mine.{role}.uge").digest() for role in ("protector", "recipient"))
    assert first == second and len(os.listdir(tmp_path)) == 2
