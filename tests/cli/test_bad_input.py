"""Whatever a user can do wrong: one line that says what to do, exit code 2, nothing at the target."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uge import cli
from uge.cli.train import train
from uge.durable import check_target
from uge.errors import PublishError

from .conftest import SMALL, WEIGHTS, Options, Run, bytes_of, protect_arguments, role, uge_arguments


@pytest.fixture
def data(toy: Path, tmp_path: Path) -> Path:
    """A copy of the toy images to break."""
    return Path(shutil.copytree(toy, tmp_path / "data"))


# -- data ------------------------------------------------------------------------------------------------------------


def test_one_class_only(run: Run, key: Path, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "test")
    for name in ("river", "sea"):
        shutil.rmtree(data / "train" / name)
    assert "one class only ('forest')" in run(*protect_arguments(data, key, tmp_path / "copy")).error
    assert [*tmp_path.iterdir()] == [data]


def test_a_bad_file_is_named_or_passed_over(run: Run, key: Path, data: Path, tmp_path: Path) -> None:
    bad = data / "train" / "river" / "004.png"
    bad.write_bytes(bad.read_bytes()[:-60])
    protect = protect_arguments(data, key, tmp_path / "copy")
    error = run(*protect).error
    assert str(bad) in error and "--skip-bad" in error and [*tmp_path.iterdir()] == [data]
    done = run(*protect, "--skip-bad").ok()
    assert done.stderr.startswith(f"note: passed over 1 unreadable of 48 images: {bad}\n")
    assert len(json.loads((tmp_path / "copy" / "manifest.json").read_text())["images"]) == 47


def test_mixed_sizes_need_a_size_where_a_method_makes_no_others(run: Run, data: Path, tmp_path: Path) -> None:
    bad = data / "train" / "river" / "004.png"
    Image.fromarray(np.arange(20 * 16 * 3, dtype=np.uint8).reshape(20, 16, 3)).save(bad)
    noise = ("protect", data, "--method", "random-noise", "--out", tmp_path / "copy")
    error = run(*noise).error
    assert "mixed sizes" in error and str(bad) in error and "--image-size" in error
    run(*noise, "--image-size", 16).ok()


@pytest.mark.parametrize("size", ["big", "0", "3x4x5", "-3", "99999"])
def test_an_image_size_that_is_none(run: Run, key: Path, toy: Path, tmp_path: Path, size: str) -> None:
    assert f"--image-size '{size}'" in run(*protect_arguments(toy, key, tmp_path / "o"), f"--image-size={size}").error


def test_a_name_that_no_disk_takes(run: Run, key: Path, toy: Path, tmp_path: Path) -> None:
    assert "File name too long" in run(*protect_arguments(toy, key, tmp_path / ("o" * 300))).error


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_network_that_is_none(run: Run, toy: Path, published: Path, tmp_path: Path) -> None:
    new = ("key", "new", "--initial-weights", "--no-passphrase", "--data", toy, "--out", tmp_path / "k")
    for base in (new, ("train", published, "--out", tmp_path / "o")):

        def error(network: str, base: Options = base) -> str:
            found = run(*base, "--network", network).error
            assert not [*tmp_path.iterdir()]
            return found

        assert error("convnt") == "unknown network 'convnt'; did you mean 'convnet'?"
        assert error("convnet:widht=8") == "unknown option of network 'convnet' 'widht'; did you mean 'width'?"
        assert "says width twice" in error("convnet:8,width=16")
        assert "whole number" in error("convnet:width=wide")


def test_keys_that_are_none(run: Run, toy: Path, key: Path, published: Path, tmp_path: Path) -> None:
    (tmp_path / "text.uge").write_text("no key")
    (tmp_path / "half.uge").write_bytes(role(key, "recipient").read_bytes()[:100])
    readers = (("protect", toy), ("open", published), ("train", published), ("attack", published, "--test", toy))
    for name in ("missing.uge", "text.uge", "half.uge"):
        assert name in run("key", "show", tmp_path / name).error
        for command in readers:
            assert name in run(*command, "--key", tmp_path / name, "--out", tmp_path / "o").error
    assert not (tmp_path / "o").exists()


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--set", "epoch=3"), "unknown setting 'epoch'; did you mean 'epochs'?"),
        (("--set", "epochs"), "not NAME=VALUE"),
        (("--set", "epochs=many"), "setting epochs is a int, got 'many'"),
        (("--set", "epochs=1.5"), "setting epochs"),
        (("--set", "epochs=inf"), "setting epochs"),
        (("--set", "epochs=0"), "epochs"),
        (("--set", "misdirection=nan"), "misdirection"),
        (("--set", "misdirection=-1"), "negative"),
        (("--set", "references=vgh"), "unknown network 'vgh'; did you mean 'vgg'?"),
        (("--epsilon", 0), "epsilon 0 is outside 1..255"),
        (("--epsilon", 2), "2"),
        (("--epsilon", "wide"), "--epsilon"),
        (("--method", "seald"), "unknown method 'seald'; did you mean 'sealed'?"),
        (("--runner", "lokal"), "unknown runner 'lokal'; did you mean 'local'?"),
        (("--preset", "quick"), "--preset"),
        (("--colour",), "--colour"),
    ],
    ids=str,
)
def test_settings_that_are_none(run: Run, toy: Path, key: Path, tmp_path: Path, more: Options, told: str) -> None:
    assert told in run(*protect_arguments(toy, key, tmp_path / "out" / "copy"), *more).error
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--hacker", "resnt"), "did you mean 'resnet'?"),
        (("--countermeasure", "distilation"), "did you mean 'distillation'?"),
        (("--countermeasure", "distillation:soft"), "give --key"),
        (("--hacker", "authorised"), "give --key"),
        (("--epochs", 0), "--epochs"),
    ],
    ids=str,
)
def test_attacks_that_are_none(run: Run, toy: Path, published: Path, tmp_path: Path, more: Options, told: str) -> None:
    assert told in run("attack", published, "--test", toy, "--out", tmp_path / "o", *more).error
    assert not (tmp_path / "o").exists()


def test_originals_of_another_copy_are_not_all_named(run: Run, toy: Path, published: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    shutil.copytree(toy / "train" / "sea", others / "train" / "sneaker")
    shutil.copytree(toy / "train" / "river", others / "train" / "bag")
    done = run("verify", published, "--clean", others)
    assert done.code == 1
    *named, more, _, verdict = done.stdout.splitlines()
    assert len(named) == 20 and all(line.startswith("problem: ") for line in named)
    assert more == "and 61 more"  # the classes, 48 copies without an original, 32 originals without a copy
    assert verdict.endswith("48 images; 81 problems")  # no epsilon: nothing was compared


# -- targets ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_another_run(run: Run, toy: Path, key: Path, published: Path, tmp_path: Path) -> None:
    before = bytes_of(published)
    assert "is not empty" in run(*protect_arguments(toy, key, published)).error
    assert "give a folder outside" in run("train", published, "--out", published).error
    assert bytes_of(published) == before
    (tmp_path / "file").write_text("mine")
    assert "is a file" in run(*protect_arguments(toy, key, tmp_path / "file")).error
    assert "is a file" in run("train", published, "--out", tmp_path / "file" / "run").error
    assert bytes_of(tmp_path) == {"file": b"mine"}


def test_the_current_folder_can_be_the_target(run: Run, toy: Path, tmp_path: Path) -> None:
    """ "." has no name of its own; neither work in progress nor the new key may lie inside it."""
    (tmp_path / "copy").mkdir()
    run("protect", toy, "--no-passphrase", "--out", ".", *SMALL, cwd=str(tmp_path / "copy")).ok()
    beside = {"copy", "copy.png", "copy.protector.uge", "copy.recipient.uge"}
    for name, told in ((".", "copy.protector.uge exists"), ("k", "give a folder outside")):
        assert told in run("key", "new", "--no-passphrase", "--out", name, cwd=str(tmp_path / "copy")).error
    inside = {"train", "manifest.json", "manifest.sig", "README.md", "SHA256SUMS", ".gitattributes"}
    assert [{path.name for path in place.iterdir()} for place in (tmp_path, tmp_path / "copy")] == [beside, inside]


def test_a_tilde_is_the_home_also_behind_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["uge", "key", "new", "--no-passphrase", "--out=~/k"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.protector.uge", "k.recipient.uge"]


def test_a_second_training_into_one_folder_is_refused_at_once(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr("uge.training.fit", lambda *_, **__: check_target(out))  # as the second begins
    with pytest.raises(PublishError, match=f"{out} is being made by process"):
        train(published, out, network="mlp")
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 48 KiB; `mount -o remount` may change it."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", place], check=True)


def test_a_full_disk_leaves_nothing_and_the_same_command_goes_on(
    run: Run, toy: Path, weights: Path, ungeneralizable: Path, small_disk: Path
) -> None:
    arguments = uge_arguments(toy, weights, small_disk / "copy")
    assert "cannot write" in run(*arguments).error
    assert not (small_disk / "copy").exists()
    remount(small_disk, "size=8m")
    run(*arguments).ok()
    (small_disk / "copy.png").unlink()
    assert bytes_of(small_disk) == {f"copy/{name}": data for name, data in bytes_of(ungeneralizable).items()}


def test_a_full_disk_leaves_no_half_key_or_training(run: Run, toy: Path, published: Path, small_disk: Path) -> None:
    assert "cannot write" in run(*WEIGHTS, "--network", "mlp", "--data", toy, "--out", small_disk / "k").error
    train = ("train", published, "--network", "mlp", "--epochs", 1)
    assert "cannot write" in run(*train, "--out", small_disk / "run").error
    assert not [*small_disk.iterdir()]


def test_a_read_only_disk(run: Run, toy: Path, key: Path, published: Path, small_disk: Path) -> None:
    remount(small_disk, "ro")
    for command in (
        protect_arguments(toy, key, small_disk / "copy"),
        (*WEIGHTS, "--data", toy, "--out", small_disk / "k"),
        ("train", published, "--network", "mlp", "--out", small_disk / "run"),
        ("attack", published, "--test", toy, "--hacker", "mlp", "--out", small_disk / "run"),
        ("demo", "--quick", "--out", small_disk / "demo"),
    ):
        assert "cannot write" in run(*command).error
