"""Sealed keys, signatures and authorised views from the command line."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from uge.data.sources import load
from uge.keys import load_key
from uge.publish import publish

from .conftest import ENVIRONMENT, INSTALLED, Run, bytes_of, role

NEW = ("key", "new", "--network", "mlp:width=8", "--epochs", 1)


@pytest.fixture(scope="module")
def passphrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("passphrase") / "passphrase"
    file.write_text("correct horse battery staple\n")
    return file


@pytest.fixture(scope="module")
def sealed(run: Run, toy: Path, passphrase: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NAME of a sealed null-space key for the toy images."""
    name = tmp_path_factory.mktemp("sealed") / "carol"
    space = ("--null-space", "--group-size", 4, "--cell", 7)
    done = run(*NEW, *space, "--data", toy, "--passphrase-file", passphrase, "--out", name)
    assert done.code == 0, done
    return name


@pytest.fixture(scope="module")
def copy(toy: Path, sealed: Path, passphrase: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed copy inside the null space of the sealed key; do not write to it."""
    key = load_key(role(sealed, "protector"), passphrase=passphrase.read_bytes().strip())
    assert key.view is not None
    clean = load(str(toy), "train")
    nonces = key.view.nonces(clean.images)
    groups = key.view.groups(nonces, clean.images.shape[1:])
    moved = clean.images.int() + 4 * groups.sign.view(clean.images.shape)
    outside = ((moved < 0) | (moved > 255)).flatten(1).int()
    blocked = torch.zeros_like(outside).scatter_add(1, groups.group, outside).gather(1, groups.group)
    images = torch.where(blocked.view(moved.shape) > 0, clean.images.int(), moved).to(torch.uint8)
    out = tmp_path_factory.mktemp("copy") / "copy"
    publish(clean, images, out, method="test", settings={}, epsilon_255=4, nonces=nonces, signers=[key])
    return out


def test_a_new_key_is_sealed_or_explicitly_not(run: Run, toy: Path, tmp_path: Path) -> None:
    error = run(*NEW, "--data", toy, "--out", tmp_path / "k").error
    assert "--passphrase-file FILE" in error and "--no-passphrase" in error
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
def test_a_passphrase_file_that_is_none(run: Run, toy: Path, tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "passphrase"
    if content is not None:
        file.write_bytes(content)
    error = run(*NEW, "--data", toy, "--passphrase-file", file, "--out", tmp_path / "k").error
    assert told in error and str(file) in error
    assert not [*tmp_path.glob("k*")]


def test_a_passphrase_is_the_same_whatever_editor_wrote_the_file(
    run: Run, sealed: Path, passphrase: Path, tmp_path: Path
) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + passphrase.read_bytes())
    assert run("key", "show", role(sealed, "recipient"), "--passphrase-file", tmp_path / "marked").code == 0


def test_options_that_do_not_go_together(run: Run, toy: Path, passphrase: Path, tmp_path: Path) -> None:
    base = (*NEW, "--data", toy, "--out", tmp_path / "k")
    assert "not both" in run(*base, "--passphrase-file", passphrase, "--no-passphrase").error
    assert "belong to --null-space" in run(*base, "--no-passphrase", "--group-size", 4).error
    assert "belongs to --reversible" in run(*base, "--no-passphrase", "--magnitudes", "full").error
    assert "did you mean 'full'" in run(*base, "--no-passphrase", "--reversible", "--magnitudes", "ful").error
    assert "group size 1 is not in 2..64" in run(*base, "--no-passphrase", "--null-space", "--group-size", 1).error
    assert not [*tmp_path.iterdir()]


def test_whoever_protects_black_images_hears_of_headroom(
    run: Run, toy: Path, sealed: Path, passphrase: Path, tmp_path: Path
) -> None:
    small = {"epochs": 1, "run_epochs": 1, "batch_size": 16, "surrogates": "mlp:width=8", "generator_width": 8}
    settings = [part for name, value in small.items() for part in ("--set", f"{name}={value}")]
    command = ("protect", toy, "--key", role(sealed, "protector"), "--passphrase-file", passphrase, *settings)
    done = run(*command, "--out", tmp_path / "tight")
    assert done.code == 0 and "note: many values are black or white" in done.stderr, done
    assert "publish these images once" in done.stdout
    done = run(*command, "--set", "headroom=true", "--out", tmp_path / "roomy")
    assert done.code == 0 and "black or white" not in done.stderr, done


def test_show_tells_layout_and_fingerprint_of_a_sealed_key_and_no_secret(
    run: Run, sealed: Path, passphrase: Path
) -> None:
    shown = [
        run("key", "show", role(sealed, each), "--passphrase-file", passphrase) for each in ("protector", "recipient")
    ]
    facts, others = (json.loads(done.stdout) for done in shown)
    assert facts == others
    assert facts["view"] == {"kind": "null-space", "group_size": 4, "cell": 7, "signs": "balanced", "channels": "mixed"}
    key = load_key(role(sealed, "protector"), passphrase=b"correct horse battery staple")
    assert key.view is not None and key.signing_key is not None and facts["fingerprint"] == key.fingerprint
    assert not any(secret.hex() in done.stdout for done in shown for secret in (key.view.secret, key.signing_key))


def test_wrong_truncated_edited_and_missing_passphrases(
    run: Run, toy: Path, sealed: Path, copy: Path, tmp_path: Path
) -> None:
    file, out = role(sealed, "recipient"), tmp_path / "o"
    (tmp_path / "wrong").write_text("incorrect horse\n")
    data = file.read_bytes()
    (tmp_path / "cut.uge").write_bytes(data[:-100])
    (tmp_path / "edited.uge").write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
    for arguments in (
        ("key", "show"),
        ("verify", copy, "--key"),
        ("train", copy, "--out", out, "--key"),
        ("attack", copy, "--test", toy, "--out", out, "--key"),
        ("protect", toy, "--out", out, "--key"),
    ):
        assert "is sealed; give its passphrase (--passphrase-file FILE" in run(*arguments, file).error
        for name, told in (
            (file, "wrong passphrase"),
            (tmp_path / "cut.uge", "cut short"),
            (tmp_path / "edited.uge", "damaged"),
        ):
            error = run(*arguments, name, "--passphrase-file", tmp_path / "wrong").error
            assert told in error and str(name) in error
    assert not out.exists()


def test_only_the_protectors_file_protects(run: Run, toy: Path, key: Path, tmp_path: Path) -> None:
    error = run("protect", toy, "--key", role(key, "recipient"), "--out", tmp_path / "o").error
    assert "is the recipient's file; this needs the protector's" in error and not [*tmp_path.iterdir()]


def test_a_terminal_asks_for_the_passphrase(sealed: Path) -> None:
    def show(typed: str) -> tuple[int, str]:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(INSTALLED, ["uge", "key", "show", str(role(sealed, "recipient"))], ENVIRONMENT)
        shown = b""
        while not shown.endswith(b": "):  # the last space comes when the terminal no longer shows what is typed
            assert select.select([terminal], [], [], 60)[0], shown
            shown += os.read(terminal, 1000)
        os.write(terminal, typed.encode() + b"\n")
        try:
            while part := os.read(terminal, 1000):
                shown += part
        except OSError:  # the other end is closed
            pass
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()

    code, shown = show("correct horse battery staple")
    assert code == 0 and "fingerprint" in shown and "correct horse" not in shown
    code, shown = show("battery")
    assert code == 2 and "wrong passphrase" in shown


def test_verify_states_signature_views_epsilon_and_budget(
    run: Run, toy: Path, sealed: Path, copy: Path, passphrase: Path
) -> None:
    assert "signature: not checked: give --key" in run("verify", copy).stdout
    done = run("verify", copy, "--key", role(sealed, "recipient"), "--clean", toy, "--passphrase-file", passphrase)
    assert done.code == 0, done
    for line in (
        "signature: valid",
        "views: 48 of 48 identical",
        "views: SHA-256 over all ",
        "budget used: 0.",
        "epsilon 4/255 measured",
    ):
        assert line in done.stdout


def test_sums_check_the_signature_too(copy: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0 and "manifest.sig: OK" in done.stdout


def test_training_sees_the_view(
    run: Run, toy: Path, sealed: Path, copy: Path, passphrase: Path, tmp_path: Path
) -> None:
    """The same weights as from the originals in a copy that is not perturbed at all."""
    key = load_key(role(sealed, "protector"), passphrase=b"correct horse battery staple")
    assert key.view is not None
    clean = load(str(toy), "train")
    nonces = key.view.nonces(clean.images)
    plain = tmp_path / "plain"
    publish(clean, clean.images, plain, method="test", settings={}, epsilon_255=4, nonces=nonces, signers=[key])
    for folder, name in ((copy, "first"), (plain, "second")):
        arguments = ("--key", role(sealed, "recipient"), "--passphrase-file", passphrase, "--test", toy)
        assert run("train", folder, *arguments, "--out", tmp_path / name).code == 0
    first, second = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("first", "second"))
    assert first["train_loss"] == second["train_loss"] and first["test_accuracy"] == second["test_accuracy"]
    weights = [bytes_of(tmp_path / name)["weights.safetensors"] for name in ("first", "second")]
    assert weights[0] == weights[1]
    assert bytes_of(copy) != bytes_of(plain)
    out = tmp_path / "attacks"
    student = ("--hacker", "mlp:width=8", "--countermeasure", "distillation:soft,queries=any", "--epochs", 1)
    done = run("attack", copy, "--test", toy, "--out", out, *student, *arguments[:4])
    assert done.code == 0, done
    secrets = [key.view.secret, key.signing_key or b"", bytes.fromhex(key.digest())]
    for written in (bytes_of(tmp_path), bytes_of(copy)):
        for data in written.values():
            assert not any(secret in data or secret.hex().encode() in data for secret in secrets)


def test_a_copy_that_the_key_cannot_trust(
    run: Run, toy: Path, key: Path, sealed: Path, copy: Path, passphrase: Path, tmp_path: Path
) -> None:
    def error(folder: Path, name: Path = sealed) -> str:
        arguments = ("--key", role(name, "recipient"), "--passphrase-file", passphrase, "--out", tmp_path / "o")
        told = run("train", folder, *arguments).error
        assert not (tmp_path / "o").exists()
        return told

    assert "use the key of this release" in error(copy, key)
    changed = Path(shutil.copytree(copy, tmp_path / "changed"))
    text = (changed / "manifest.json").read_text()
    (changed / "manifest.json").write_text(text.replace('"label": 0', '"label": 1', 1))
    assert "was edited after it was signed" in error(changed)
    (changed / "manifest.json").unlink()
    assert "cannot read manifest.json" in error(changed)
    (changed / "manifest.json").write_text(text)
    file = changed / "train/sandal/003.png"
    image = Image.open(file).copy()
    image.putpixel((5, 5), (image.getpixel((5, 5)) + 1) % 256)
    image.save(file)
    assert "has the pixels of train/sandal/003.png" in error(changed)
    (changed / "manifest.sig").unlink()
    assert "has no manifest.sig" in error(changed)
