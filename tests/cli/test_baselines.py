"""Protections without a key: one command, no signature."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run, bytes_of, role


def test_a_copy_without_a_key(run: Run, toy: Path, tmp_path: Path) -> None:
    command = ("protect", toy, "--method", "lsp", "--set", "patch=4")
    done = run(*command, "--out", tmp_path / "copy")
    assert done.code == 0 and not done.stderr
    assert "48 images of 3 classes" in done.stdout and "no bound asked" in done.stdout
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert manifest["epsilon_255"] is None and 6 <= manifest["epsilon_measured_255"] < 128
    assert not (tmp_path / "copy" / "manifest.sig").exists()
    checked = run("verify", tmp_path / "copy", "--clean", toy)
    assert checked.code == 0 and "all as published" in checked.stdout and "signature: none" in checked.stdout
    assert run(*command, "--out", tmp_path / "again").code == 0
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "copy")


def test_an_epsilon_where_there_is_none(run: Run, toy: Path, tmp_path: Path) -> None:
    arguments = ("protect", toy, "--method", "cuda", "--out", tmp_path / "copy", "--epsilon", 8)
    assert "unknown setting 'epsilon_255'" in run(*arguments).error
    assert run("protect", toy, "--method", "random-noise", "--out", tmp_path / "copy", "--epsilon", 3).code == 0
    assert json.loads((tmp_path / "copy" / "manifest.json").read_text())["epsilon_measured_255"] == 3


def test_whoever_protects_hears_how_much_was_changed_and_when_it_is_next_to_nothing(
    run: Run, toy: Path, tmp_path: Path
) -> None:
    arguments = ("protect", toy, "--method", "random-noise")
    little = run(*arguments, "--epsilon", 1, "--out", tmp_path / "little")
    assert little.code == 0 and "hardly differ from the originals" in little.stderr and "PSNR" in little.stdout
    enough = run(*arguments, "--epsilon", 8, "--out", tmp_path / "enough")
    assert enough.code == 0 and not enough.stderr
    assert 34 < float(enough.stdout.partition("PSNR ")[2].split()[0]) < 38  # rms 4.9, less where black clips it


def test_keys_where_there_are_none_and_none_where_one_is_needed(run: Run, toy: Path, key: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "copy")
    done = run("protect", toy, "--key", role(key, "protector"), "--method", "ops", *out)
    assert "takes one reversible key, got: initial weights" in done.error
    for method in ((), ("--method", "uge"), ("--method", "null-space")):
        assert "needs --key NAME.protector.uge" in run("protect", toy, *method, *out).error
    assert not [*tmp_path.iterdir()]


def test_a_lock_opens_its_own_copy_alone(run: Run, toy: Path, tmp_path: Path) -> None:
    small = ("--method", "learnability-lock", "--set", "network=mlp:width=8", "--set", "rounds=1")
    for seed in (0, 1):
        files = ("--lock", tmp_path / f"{seed}.lock", "--out", tmp_path / f"copy-{seed}")
        assert run("protect", toy, *small, "--seed", seed, *files).code == 0
    assert run("protect", toy, "--method", "ops", "--out", tmp_path / "other").code == 0
    opened = tmp_path / "opened"
    wrong = run("unlock", tmp_path / "copy-1", "--lock", tmp_path / "0.lock", "--out", opened)
    assert "is the lock of another copy" in wrong.error
    none = run("unlock", tmp_path / "other", "--lock", tmp_path / "0.lock", "--out", opened)
    assert "was made by the method ops" in none.error and not opened.exists()
    assert run("unlock", tmp_path / "copy-0", "--lock", tmp_path / "0.lock", "--out", opened).code == 0
    assert opened.stat().st_mode & 0o777 == 0o700
    manifest = tmp_path / "copy-0" / "manifest.json"
    older = json.loads(manifest.read_text())
    del older["settings"]["lock"]  # as it was before locks had names
    manifest.write_text(json.dumps(older))
    assert run("unlock", tmp_path / "copy-0", "--lock", tmp_path / "0.lock", "--out", tmp_path / "older").code == 0


def test_the_list_names_them(run: Run) -> None:
    assert "random-noise, lsp, ops, ar, cuda, em, tap" in run("list").stdout
