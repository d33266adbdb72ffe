"""Protections without a key: one command, no signature."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run, bytes_of, given, role


def test_a_copy_without_a_key(run: Run, toy: Path, tmp_path: Path) -> None:
    command = ("protect", toy, "--method", "lsp", "--set", "patch=4")
    done = run(*command, "--out", tmp_path / "copy").ok()
    assert not done.stderr
    assert "48 images of 3 classes" in done.stdout and "no bound asked" in done.stdout
    assert f"Give {tmp_path / 'copy'} to anybody; it has no key.\n" in done.stdout
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert manifest["epsilon_255"] is None and 6 <= manifest["epsilon_measured_255"] < 128
    assert not (tmp_path / "copy" / "manifest.sig").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "copy.png"]
    checked = run("verify", tmp_path / "copy", "--clean", toy).ok()
    assert "all as its manifest says" in checked.stdout and "signature: none" in checked.stdout
    run(*command, "--out", tmp_path / "again").ok()
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "copy")


def test_whoever_protects_hears_how_much_was_changed(run: Run, toy: Path, tmp_path: Path) -> None:
    arguments = ("protect", toy, "--method", "random-noise")
    little = run(*arguments, "--epsilon", 1, "--out", tmp_path / "little").ok()
    assert "hardly differ from the originals" in little.stderr and "PSNR" in little.stdout
    enough = run(*arguments, "--epsilon", 8, "--out", tmp_path / "enough").ok()
    assert not enough.stderr
    assert 34 < float(enough.stdout.partition("PSNR ")[2].split()[0]) < 38  # rms 4.9, less where black clips it


def test_keys_of_another_kind_or_too_many_are_refused(run: Run, toy: Path, key: Path, tmp_path: Path) -> None:
    protect, sealed = ("protect", toy, "--out", tmp_path / "copy"), ("--key", role(key, "protector"))
    assert "takes no key" in run(*protect, *sealed, "--method", "ops").error
    assert "takes a key of the kind initial-weights, got sealed" in run(*protect, *sealed, "--method", "uge").error
    assert "takes a key of the kind initial-weights, got none" in run(*protect, "--method", "uge").error
    assert "one letter" in run(*protect, *sealed, *sealed).error
    assert not [*tmp_path.iterdir()]


def test_a_lock_opens_its_own_copy_alone(run: Run, toy: Path, tmp_path: Path) -> None:
    small = ("--method", "learnability-lock", *given("network=mlp:width=8"))
    for rounds in (1, 2):
        copy = tmp_path / f"copy-{rounds}"
        done = run("protect", toy, *small, "--set", f"rounds={rounds}", "--out", copy).ok()
        assert f"{copy}.lock to the recipient alone" in done.stdout
        assert copy.with_name(f"{copy.name}.lock").stat().st_mode & 0o777 == 0o600
    run("protect", toy, "--method", "ops", "--out", tmp_path / "other").ok()
    mine, opened = ("--key", tmp_path / "copy-1.lock"), tmp_path / "opened"
    for wrong in ("copy-2", "other"):
        assert "is not the lock of" in run("open", tmp_path / wrong, *mine, "--out", opened).error
    assert not opened.exists()
    run("open", tmp_path / "copy-1", *mine, "--out", opened).ok()
    assert opened.stat().st_mode & 0o777 == 0o700 and len(bytes_of(opened)) == 48
