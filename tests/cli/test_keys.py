"""Keys from the command line: encrypted or explicitly not, for a passphrase or for somebody's age key."""

from __future__ import annotations

import json
import os
import pty
import select
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from uge.keys import load_key

from .conftest import ENVIRONMENT, INSTALLED, Run, role

NEW = ("key", "new")


@pytest.fixture(scope="module")
def encrypted(made: Callable[..., Path], passphrase: Path) -> Path:
    """NAME of an encrypted key."""
    return made("carol", *NEW, "--passphrase-file", passphrase)


def test_key_files_are_private_and_nothing_secret_is_shown(run: Run, key: Path, weights: Path) -> None:
    for name in (key, weights):
        shown = [run("key", "show", role(name, each)) for each in ("protector", "recipient")]
        facts, others = (json.loads(done.stdout) for done in shown)
        assert [each.pop("role").partition(":")[0] for each in (facts, others)] == ["protector", "recipient"]
        assert facts == others and facts["kind"] == ("sealed" if name == key else "initial-weights")
        assert all(role(name, each).stat().st_mode & 0o777 == 0o600 for each in ("protector", "recipient"))
        held = load_key(role(name, "protector"))
        assert held.signing_key is not None and facts["fingerprint"] == held.fingerprint
        secrets = [held.signing_key] if name == weights else [held.signing_key, held.secret]
        assert not any(secret.hex() in done.stdout for done in shown for secret in secrets)
    assert facts["network"] == "convnet(width=8)" and facts["class_names"] == ["forest", "river", "sea"]
    assert facts["image_size"] == [16, 16] and "weights" not in facts


@pytest.mark.parametrize("command", [NEW, ("protect", "eurosat")], ids=["key new", "protect"])
def test_a_new_key_is_encrypted_or_explicitly_not(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    error = run(*command, "--out", tmp_path / "k").error
    assert error == "give --passphrase-file FILE to encrypt the new key, or --no-passphrase to leave it open"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"", "has 0 lines"),
        (b"\n", "expected one"),
        (b"a\nb\n", "has 2 lines"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_passphrase_file_that_is_none(run: Run, tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "passphrase"
    if content is not None:
        file.write_bytes(content)
    error = run(*NEW, "--passphrase-file", file, "--out", tmp_path / "k").error
    assert told in error and str(file) in error
    assert not [*tmp_path.glob("k*")]


def test_a_passphrase_is_the_same_whatever_editor_wrote_the_file(
    run: Run, encrypted: Path, passphrase: Path, tmp_path: Path
) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + passphrase.read_bytes())
    run("key", "show", role(encrypted, "recipient"), "--passphrase-file", tmp_path / "marked").ok()


def test_options_that_do_not_go_together(run: Run, toy: Path, passphrase: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "k")
    assert "not both" in run(*NEW, *out, "--passphrase-file", passphrase, "--no-passphrase").error
    for more in (("--network", "mlp"), ("--data", toy), ("--epochs", 3)):
        assert "belong to --initial-weights" in run(*NEW, *out, "--no-passphrase", *more).error
    for more in ((), ("--network", "mlp"), ("--data", toy)):
        error = run(*NEW, *out, "--initial-weights", "--no-passphrase", *more).error
        assert "needs --network NETWORK and --data DATA" in error
    assert not [*tmp_path.iterdir()]


def test_wrong_and_missing_passphrases(run: Run, toy: Path, encrypted: Path, published: Path, tmp_path: Path) -> None:
    file, out = role(encrypted, "recipient"), tmp_path / "o"
    (tmp_path / "wrong").write_text("incorrect horse\n")
    for arguments in (
        ("key", "show"),
        ("verify", published, "--key"),
        ("open", published, "--out", out, "--key"),
        ("train", published, "--out", out, "--key"),
        ("attack", published, "--test", toy, "--out", out, "--key"),
        ("audit", published, "--test", toy, "--out", out, "--key"),
        ("protect", toy, "--out", out, "--key"),
    ):
        assert "is sealed; give its passphrase (--passphrase-file FILE" in run(*arguments, file).error
    error = run("key", "show", file, "--passphrase-file", tmp_path / "wrong").error
    assert "wrong passphrase" in error and str(file) in error
    assert not out.exists()


def test_the_recipients_file_can_be_for_his_own_age_key_alone(
    run: Run, toy: Path, published: Path, passphrase: Path, tmp_path: Path
) -> None:
    his, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    for name, identity in (("his", his), ("other", other)):
        (tmp_path / name).write_text(f"# public key: {identity.to_public()}\n{identity}\n")
    lock = ("--passphrase-file", passphrase)
    run(*NEW, "--to", his.to_public(), *lock, "--out", tmp_path / "k").ok()
    recipient, protector = role(tmp_path / "k", "recipient"), role(tmp_path / "k", "protector")
    run("key", "show", recipient, "--passphrase-file", tmp_path / "his").ok()
    run("key", "show", protector, *lock).ok()
    assert "is not the identity" in run("key", "show", recipient, "--passphrase-file", tmp_path / "other").error
    assert "sealed for an age or ssh key" in run("key", "show", recipient, *lock).error
    assert pyrage.decrypt(recipient.read_bytes(), [his]).startswith(b"{")
    error = run(*NEW, "--to", "age1nobody", "--no-passphrase", "--out", tmp_path / "x").error
    assert "'age1nobody' is no recipient" in error and not [*tmp_path.glob("x*")]


def test_only_the_protectors_file_protects(run: Run, toy: Path, key: Path, tmp_path: Path) -> None:
    error = run("protect", toy, "--key", role(key, "recipient"), "--out", tmp_path / "o").error
    assert "is the recipient's file; this needs the protector's" in error and not [*tmp_path.iterdir()]


def at_a_terminal(arguments: list[str], *typed: str) -> tuple[int, str]:
    """Exit code and what the terminal showed, when each question is answered."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(INSTALLED, ["uge", *arguments], ENVIRONMENT)
    shown = b""
    for answer in typed:
        while not shown.endswith(b": "):  # the last space comes when the terminal no longer shows what is typed
            assert select.select([terminal], [], [], 60)[0], shown
            shown += os.read(terminal, 1000)
        shown += b"|"
        os.write(terminal, answer.encode() + b"\n")
    try:
        while part := os.read(terminal, 1000):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_a_terminal_asks_for_the_passphrase(run: Run, encrypted: Path, tmp_path: Path) -> None:
    show = ["key", "show", str(role(encrypted, "recipient"))]
    code, shown = at_a_terminal(show, "correct horse battery staple")
    assert code == 0 and "fingerprint" in shown and "correct horse" not in shown
    code, shown = at_a_terminal(show, "battery")
    assert code == 2 and "wrong passphrase" in shown
    code, shown = at_a_terminal(["key", "new", "--out", str(tmp_path / "mine")], "secret", "secret")
    assert code == 0 and "secret" not in shown.replace("NAME", "")
    (tmp_path / "passphrase").write_text("secret\n")
    lock = ("--passphrase-file", tmp_path / "passphrase")
    run("key", "show", tmp_path / "mine.protector.uge", *lock).ok()


def test_a_terminal_that_protects_asks_before_the_long_work(run: Run, tmp_path: Path) -> None:
    """But not about what is not there."""
    (tmp_path / "empty").mkdir()
    protect = ["protect", str(tmp_path / "empty"), "--out", str(tmp_path / "C")]
    code, shown = at_a_terminal(protect, "secret", "secret")
    assert code == 2 and shown.index("Passphrase of the new key") < shown.index("holds no image")
    code, shown = at_a_terminal(["protect", str(tmp_path / "nowhere"), "--out", str(tmp_path / "C")])
    assert code == 2 and "does not exist" in shown and "Passphrase" not in shown
    assert [each.name for each in tmp_path.iterdir()] == ["empty"]
