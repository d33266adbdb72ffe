"""The whole way: key, protect, verify, train, attack; and what `verify` finds."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from PIL import Image

from uge.protect.ungeneralizable import PRESETS

from .conftest import Run, bytes_of, protect_arguments, role


def test_key_files_are_private_and_show_no_weights(run: Run, key: Path) -> None:
    for name in ("protector", "recipient"):
        assert role(key, name).stat().st_mode & 0o777 == 0o600
        facts = json.loads(run("key", "show", role(key, name)).stdout)
        assert facts["network"] == "convnet(width=8)" and facts["class_names"] == ["sandal", "t-shirt", "trouser"]
        assert "weights" not in facts


def test_a_key_without_data(run: Run, tmp_path: Path) -> None:
    done = run(
        *(
            "key",
            "new",
            "--no-passphrase",
            "--network",
            "mlp:width=8",
            "--class-names",
            "cat,dog",
            "--image-size",
            "8x12",
        ),
        *("--out", tmp_path / "bob"),
    )
    assert done.code == 0
    facts = json.loads(run("key", "show", tmp_path / "bob.recipient.uge").stdout)
    assert (facts["image_size"], facts["channels"], facts["class_names"]) == ([8, 12], 3, ["cat", "dog"])


def test_protect_publishes_within_its_bound(run: Run, toy: Path, published: Path) -> None:
    manifest = json.loads((published / "manifest.json").read_text())
    assert len(manifest["images"]) == len(list(published.glob("train/*/*.png"))) == 48
    assert 1 <= manifest["epsilon_measured_255"] <= manifest["epsilon_255"] == PRESETS["quick"].epsilon_255
    assert manifest["settings"]["run_epochs"] == 1 and "seed" not in manifest["settings"]
    rows = [json.loads(line) for line in (published.parent / "protect.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(1, 25)]
    assert all(row[name] is not None for row in rows for name in ("gradient_matching", "undistillation"))
    assert not published.with_name("copy.partial").exists()
    checked = run("verify", published, "--clean", toy)
    assert checked.code == 0 and "48 images" in checked.stdout and "all as published" in checked.stdout


def test_the_same_key_and_seed_give_the_same_bytes(
    run: Run, toy: Path, key: Path, published: Path, tmp_path: Path
) -> None:
    assert run(*protect_arguments(toy, key, tmp_path / "again")).code == 0
    assert bytes_of(tmp_path / "again") == bytes_of(published)
    assert run(*protect_arguments(toy, key, tmp_path / "other"), "--seed", 1).code == 0
    pixels = {name: data for name, data in bytes_of(tmp_path / "other").items() if name.endswith(".png")}
    assert pixels.keys() <= bytes_of(published).keys()
    assert pixels.items() != {n: d for n, d in bytes_of(published).items() if n.endswith(".png")}.items()


@pytest.mark.parametrize("term", ["gradient_matching", "feature_distance", "undistillation"])
def test_a_term_can_be_switched_off(run: Run, toy: Path, key: Path, tmp_path: Path, term: str) -> None:
    done = run(
        *protect_arguments(toy, key, tmp_path / "copy"),
        *("--set", f"{term}=0", "--set", "epochs=1", "--epsilon", 8, "--log", tmp_path / "log.jsonl"),
    )
    assert done.code == 0, done
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    terms = ("gradient_matching", "feature_distance", "undistillation")
    assert all((row[name] is None) == (name == term) for row in rows for name in terms)
    assert json.loads((tmp_path / "copy" / "manifest.json").read_text())["epsilon_255"] == 8


def test_settings_from_a_file_give_way_to_the_command_line(run: Run, toy: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("epochs = 1\nepsilon_255 = 4\nlive_runs = 1\nstudents = ['mlp:width=4']\n")
    arguments = [part for part in protect_arguments(toy, key, tmp_path / "copy") if "epochs=8" not in str(part)]
    arguments.remove("--set")
    assert run(*arguments, "--config", tmp_path / "settings.toml", "--epsilon", 6).code == 0
    settings = json.loads((tmp_path / "copy" / "manifest.json").read_text())["settings"]
    assert (settings["epochs"], settings["epsilon_255"], settings["live_runs"]) == (1, 6, 1)
    assert settings["students"] == ["mlp:width=8"]  # --set wins over the file


def test_train_with_and_without_a_key(run: Run, toy: Path, key: Path, published: Path, tmp_path: Path) -> None:
    out = tmp_path / "authorised"
    done = run("train", published, "--key", role(key, "recipient"), "--test", toy, "--out", out)
    assert done.code == 0 and "accuracy" in done.stdout, done
    facts = json.loads((out / "run.json").read_text())
    assert facts["key"] and facts["recipe"]["epochs"] == 2 and 0 <= facts["accuracy"] <= facts["peak_accuracy"] <= 100
    assert sorted(file.name for file in out.iterdir()) == ["run.json", "weights.safetensors"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    done = run("train", published, "--network", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "plain")
    assert done.code == 0, done
    facts = json.loads((tmp_path / "plain" / "run.json").read_text())
    assert not facts["key"] and "accuracy" not in facts and len(facts["train_loss"]) == 1


def test_attacks_add_up_and_are_not_repeated(run: Run, toy: Path, key: Path, published: Path, tmp_path: Path) -> None:
    out = tmp_path / "attacks"
    base = ("attack", published, "--test", toy, "--out", out, "--epochs", 1)
    assert run(*base, "--hacker", "mlp:width=8").code == 0
    done = run(
        *base, "--hacker", "mlp:width=8", "--countermeasure", "distillation:soft", "--key", role(key, "recipient")
    )
    assert done.code == 0 and "distillation:soft" in done.stdout, done
    first = (out / "records.jsonl").read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [(row["kind"], row["countermeasure"], row["knows"]) for row in rows] == [
        ("hacker", "none", "nothing"),
        ("authorised", "none", "key"),
        ("hacker", "distillation:soft", "model outputs"),
    ]
    again = run(*base, "--hacker", "mlp:width=8")
    assert again.code == 0 and "mlp(width=8)" in again.stdout and (out / "records.jsonl").read_text() == first
    assert "note" not in again.stderr
    gray = run(*base, "--hacker", "mlp:width=8", "--countermeasure", "grayscale")
    assert gray.code == 0 and "note: grayscale is of no use here: the images are gray already" in gray.stderr


def test_a_folder_of_another_program_is_attacked_past_a_file_that_is_none(run: Run, toy: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(toy / "train", theirs)
    (theirs / "sandal" / "broken.png").write_text("no image")
    base = ("attack", theirs, "--test", toy, "--hacker", "convnet:width=8", "--epochs", 30, "--out", tmp_path / "o")
    refused = run(*base)
    assert refused.code == 2 and "broken.png" in refused.error and "--skip-bad" in refused.error
    done = run(*base, "--skip-bad")
    assert done.code == 0 and "broken.png" in done.stderr, done
    (row,) = [json.loads(line) for line in (tmp_path / "o" / "records.jsonl").read_text().splitlines()]
    assert row["accuracy"] >= 60  # these are the originals; chance is 33


def test_test_images_of_other_classes_are_refused(run: Run, toy: Path, published: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    shutil.copytree(toy / "test" / "sandal", others / "test" / "sneaker")
    shutil.copytree(toy / "test" / "trouser", others / "test" / "bag")
    told = "the test images differ from the published ones in classes, channels or image size"
    for arguments in (
        ("train", published, "--network", "mlp:width=8"),
        ("attack", published, "--hacker", "mlp:width=8"),
    ):
        done = run(*arguments, "--test", others, "--out", tmp_path / "o")
        assert done.code == 2 and told in done.error, done
    assert not (tmp_path / "o").exists()


def test_a_published_folder_without_its_manifest_is_not_taken_for_any_folder(
    run: Run, toy: Path, copy: Path, tmp_path: Path
) -> None:
    (copy / "manifest.json").unlink()
    for command in ("attack", "audit"):
        done = run(command, copy, "--test", toy, "--out", tmp_path / "o")
        assert done.code == 2 and "has lost its manifest.json" in done.error, done


# -- what verify finds -----------------------------------------------------------------------------------------------


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


def problems(run: Run, *arguments: object) -> list[str]:
    done = run("verify", *arguments)
    assert done.code == 1 and not done.stderr, done
    return [line.removeprefix("problem: ") for line in done.stdout.splitlines() if line.startswith("problem: ")]


def test_verify_names_a_changed_pixel(run: Run, copy: Path) -> None:
    image = Image.open(copy / "train/sandal/003.png").copy()
    image.putpixel((5, 5), (image.getpixel((5, 5)) + 1) % 256)
    image.save(copy / "train/sandal/003.png")
    assert problems(run, copy) == ["train/sandal/003.png: pixels changed"]


def test_verify_names_a_swapped_label(run: Run, copy: Path) -> None:
    (copy / "train/sandal/003.png").rename(copy / "train/trouser/903.png")
    found = problems(run, copy)
    assert "train/sandal/003.png: label swapped, moved to train/trouser/903.png" in found


def test_verify_names_missing_and_extra_files(run: Run, copy: Path) -> None:
    (copy / "train/sandal/003.png").unlink()
    (copy / "train/sandal/notes.txt").write_text("mine")
    assert problems(run, copy) == ["train/sandal/003.png: missing", "train/sandal/notes.txt: extra, not published"]


def test_verify_names_a_larger_epsilon_than_stated(run: Run, toy: Path, published: Path, tmp_path: Path) -> None:
    """Originals that differ from the copy by more than it states."""
    other = Path(shutil.copytree(toy / "train", tmp_path / "originals"))
    image = Image.open(other / "sandal" / "000.png").point(lambda value: 255 - value)
    image.save(other / "sandal" / "000.png")
    found = problems(run, published, "--clean", other)
    assert len(found) == 1 and found[0].startswith("epsilon: ") and "train/sandal/000.png" in found[0]
