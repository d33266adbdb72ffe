"""The whole way: protect, verify, open, train, attack; by default, and with a key of one's own."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import SMALL, Run, bytes_of, protect_arguments, role, uge_arguments


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.array(picture)


# -- sealed copies ---------------------------------------------------------------------------------------------------


def test_without_a_key_protect_draws_one_and_ends_with_four_lines(run: Run, toy: Path, tmp_path: Path) -> None:
    done = run("protect", toy, "--no-passphrase", "--out", tmp_path / "C", *SMALL)
    assert done.code == 0, done
    what, look, who, next_ = done.stdout.splitlines()
    c = str(tmp_path / "C")
    assert what == f"Published {c}: 48 images of 3 classes, method sealed."
    assert re.fullmatch(
        r"PSNR \d\d\.\d dB \(median\), epsilon \d+ of 255 measured, 16 allowed\. Look at .*C\.png, and keep it\.", look
    )
    assert who == f"Give {c} to anybody, {c}.recipient.uge to the recipient alone, keep {c}.protector.uge."
    assert shlex.split(next_.removeprefix("Next: "))[:7] == ["uge", "audit", c, "--test", str(toy), "--clean", str(toy)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["C", "C.png", "C.protector.uge", "C.recipient.uge"]
    private = [role(tmp_path / "C", "protector"), role(tmp_path / "C", "recipient"), tmp_path / "C.png"]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in private)
    assert pixels(tmp_path / "C.png").shape[2] == 3
    checked = run("verify", tmp_path / "C", "--key", role(tmp_path / "C", "recipient"), "--clean", toy)
    assert checked.code == 0 and "views: 48 of 48 identical to those of the originals\n" in checked.stdout


def test_protect_without_a_terminal_asks_for_a_decision_in_one_line(run: Run, toy: Path, tmp_path: Path) -> None:
    error = run("protect", toy, "--out", tmp_path / "C", *SMALL).error
    assert error == "give --passphrase-file FILE to encrypt the new key, or --no-passphrase to leave it open"
    assert not [*tmp_path.iterdir()]


def test_a_new_key_can_be_encrypted_beside_the_copy(run: Run, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    lock = ("--passphrase-file", tmp_path / "secret")
    assert run("protect", toy, *lock, "--out", tmp_path / "C", *SMALL).code == 0
    recipient = role(tmp_path / "C", "recipient")
    assert "is sealed; give its passphrase" in run("verify", tmp_path / "C", "--key", recipient).error
    assert run("verify", tmp_path / "C", "--key", recipient, *lock).code == 0


def test_a_failure_before_anything_is_begun_leaves_no_new_key(run: Run, toy: Path, tmp_path: Path) -> None:
    small = ("--image-size", 8, "--no-passphrase", "--out", tmp_path / "C")  # no room for a letter
    assert run("protect", toy, *small).error
    assert not [*tmp_path.iterdir()]


def test_verify_opens_every_letter(run: Run, toy: Path, key: Path, published: Path) -> None:
    done = run("verify", published, "--key", role(key, "recipient"), "--clean", toy)
    assert done.code == 0, done
    signature, letters, views, verdict = done.stdout.splitlines()
    assert signature.startswith("signature: valid, by the key of fingerprint ")
    assert letters == "letters: 48 of 48 open"
    assert views == "views: 48 of 48 identical to those of the originals"
    assert re.search(r"48 images, epsilon \d+/255 measured; all as published", verdict)
    assert "signature: not checked: give --key" in run("verify", published).stdout


def test_open_writes_the_originals_but_for_the_lowest_bit(
    run: Run, toy: Path, key: Path, published: Path, tmp_path: Path
) -> None:
    done = run("open", published, "--key", role(key, "recipient"), "--out", tmp_path / "mine")
    assert done.code == 0 and "48 images opened" in done.stdout, done
    names = sorted(path.relative_to(toy) for path in (toy / "train").rglob("*.png"))
    assert sorted(path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*.png")) == names
    assert all((pixels(tmp_path / "mine" / name) == pixels(toy / name) & 0xFE).all() for name in names)
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o700


def test_training_on_the_copy_is_training_on_the_originals_whatever_the_network(
    run: Run, toy: Path, key: Path, published: Path, tmp_path: Path
) -> None:
    assert run("open", published, "--key", role(key, "recipient"), "--out", tmp_path / "mine").code == 0
    assert (
        run("protect", tmp_path / "mine", "--key", role(key, "protector"), "--out", tmp_path / "other", *SMALL).code
        == 0
    )
    for network in ((), ("--network", "mlp:width=8")):
        for copy, name in ((published, "a"), (tmp_path / "other", "b")):
            arguments = ("--key", role(key, "recipient"), "--test", toy, "--epochs", 2, *network)
            done = run("train", copy, *arguments, "--out", tmp_path / name)
            assert done.code == 0 and "accuracy" in done.stdout, done
        facts = json.loads((tmp_path / "a" / "run.json").read_text())
        assert facts["key"] and facts["recipe"]["epochs"] == 2
        assert facts["network"] == ("mlp(width=8)" if network else "resnet(depth=8,width=16)")
        assert bytes_of(tmp_path / "a")["weights.safetensors"] == bytes_of(tmp_path / "b")["weights.safetensors"]
        for name in ("a", "b"):
            shutil.rmtree(tmp_path / name)
    assert bytes_of(published) != bytes_of(tmp_path / "other")


def test_a_student_queries_the_recipients_network(
    run: Run, toy: Path, key: Path, published: Path, tmp_path: Path
) -> None:
    out = tmp_path / "attacks"
    base = ("attack", published, "--test", toy, "--out", out, "--epochs", 1, "--hacker", "mlp:width=8")
    assert run(*base).code == 0
    done = run(*base, "--countermeasure", "distillation:soft", "--key", role(key, "recipient"))
    assert done.code == 0 and "distillation:soft" in done.stdout, done
    first = (out / "records.jsonl").read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [(row["kind"], row["countermeasure"], row["knows"]) for row in rows] == [
        ("hacker", "none", "nothing"),
        ("authorised", "none", "key"),
        ("hacker", "distillation:soft", "model outputs"),
    ]
    again = run(*base)
    assert again.code == 0 and "mlp(width=8)" in again.stdout and (out / "records.jsonl").read_text() == first
    assert not again.stderr


# -- what is not as it was published ---------------------------------------------------------------------------------


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


FILE = "train/forest/003.png"


def change_a_pixel(copy: Path) -> None:
    changed = pixels(copy / FILE)
    changed[5, 5, 1] ^= 1
    Image.fromarray(changed).save(copy / FILE)


def through_jpeg(copy: Path) -> None:
    for file in copy.rglob("*.png"):
        Image.fromarray(pixels(file)).save(file.with_suffix(".jpg"), quality=95)
        Image.fromarray(pixels(file.with_suffix(".jpg"))).save(file)
        file.with_suffix(".jpg").unlink()


def problems(run: Run, *arguments: object) -> list[str]:
    done = run("verify", *arguments)
    assert done.code == 1 and not done.stderr, done
    return [line.removeprefix("problem: ") for line in done.stdout.splitlines() if line.startswith("problem: ")]


@pytest.mark.parametrize("change", [change_a_pixel, through_jpeg])
def test_changed_pixels_are_one_clear_line_for_everybody(
    run: Run, toy: Path, key: Path, copy: Path, tmp_path: Path, change: object
) -> None:
    change(copy)
    many = "48 files: pixels changed; the first is train/forest/000.png"
    expected = f"{FILE}: pixels changed" if change is change_a_pixel else many
    mine, test, out = ("--key", role(key, "recipient")), ("--test", toy), ("--out", tmp_path / "o")
    assert problems(run, copy) == problems(run, copy, *mine, "--clean", toy) == [expected]
    assert "do not open with this key" in run("open", copy, *mine, *out).error
    assert "do not open with this key" in run("open", copy / FILE, *mine, *out).error
    for call in (("train", copy), ("attack", copy, *test), ("audit", copy, *test)):
        assert "lossy formats and resizing change pixels" in run(*call, *mine, *out).error
        assert "run 'uge verify" in run(*call, *out).error
    assert not (tmp_path / "o").exists()


def test_a_wrong_key_is_one_clear_line_for_everybody(run: Run, toy: Path, copy: Path, tmp_path: Path) -> None:
    assert run("key", "new", "--no-passphrase", "--out", tmp_path / "eve").code == 0
    mine, test, out = ("--key", role(tmp_path / "eve", "recipient")), ("--test", toy), ("--out", tmp_path / "o")
    (problem,) = problems(run, copy, *mine, "--clean", toy)
    assert "use the key of this release" in problem
    assert "do not open with this key" in run("open", copy / FILE, *mine, *out).error
    for call in (("open", copy), ("train", copy), ("attack", copy, *test), ("audit", copy, *test)):
        assert "use the key of this release" in run(*call, *mine, *out).error
    assert not (tmp_path / "o").exists()


def test_with_a_key_whatever_it_did_not_sign_is_refused(
    run: Run, toy: Path, key: Path, copy: Path, tmp_path: Path
) -> None:
    mine, test, out = ("--key", role(key, "recipient")), ("--test", toy), ("--out", tmp_path / "o")
    calls = [("open", copy), ("train", copy), ("attack", copy, *test), ("audit", copy, *test)]

    def refused(told: str) -> None:
        for call in calls:
            assert told in run(*call, *mine, *out).error, call

    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"label": 0', '"label": 1', 1))
    refused("was edited after it was signed")
    assert "was edited after it was signed" in problems(run, copy, *mine)[0]
    (copy / "manifest.json").write_text(manifest)
    (copy / "manifest.sig").unlink()
    refused("has no manifest.sig")
    assert "has no manifest.sig" in problems(run, copy, *mine)[0]
    (copy / "manifest.json").unlink()
    refused("is no published folder: cannot read manifest.json")
    assert "is no published folder" in run("verify", copy, *mine).error
    assert not (tmp_path / "o").exists()


def test_parts_and_single_files_open_without_a_manifest(
    run: Run, toy: Path, key: Path, copy: Path, tmp_path: Path
) -> None:
    mine = ("--key", role(key, "recipient"))
    part = tmp_path / "part"
    shutil.copytree(copy / "train/sea", part / "of the sea")
    shutil.copy(copy / FILE, part / "tree.png")
    assert run("open", part, *mine, "--out", tmp_path / "opened").code == 0
    assert len(bytes_of(tmp_path / "opened" / "train" / "of the sea")) == 16
    assert (pixels(tmp_path / "opened/tree.png") == pixels(toy / FILE) & 0xFE).all()
    assert run("open", part / "tree.png", *mine, "--out", tmp_path / "one").code == 0
    assert bytes_of(tmp_path / "one")["tree.png"] == bytes_of(tmp_path / "opened")["tree.png"]
    (part / "notes.png").write_text("no picture")
    assert "1 of 18 images do not open" in run("open", part, *mine, "--out", tmp_path / "o").error
    done = run("open", part, *mine, "--out", tmp_path / "o", "--skip-bad")
    assert done.code == 0 and done.stderr.startswith("note: 1 of 18 images do not open") and "notes.png" in done.stderr


# -- the paper's method, and no key at all ---------------------------------------------------------------------------


def test_the_papers_method_publishes_within_its_bound(
    run: Run, toy: Path, weights: Path, ungeneralizable: Path
) -> None:
    manifest = json.loads((ungeneralizable / "manifest.json").read_text())
    assert len(manifest["images"]) == len(list(ungeneralizable.glob("train/*/*.png"))) == 48
    assert manifest["method"] == "uge" and 1 <= manifest["epsilon_measured_255"] <= manifest["epsilon_255"]
    assert manifest["settings"]["run_epochs"] == 1 and "seed" not in manifest["settings"]
    assert not ungeneralizable.with_name("uge.partial").exists()
    checked = run("verify", ungeneralizable, "--clean", toy, "--key", role(weights, "recipient"))
    assert checked.code == 0 and "signature: valid" in checked.stdout and "views" not in checked.stdout
    error = run("open", ungeneralizable, "--key", role(weights, "recipient"), "--out", toy / "o").error
    assert "sees the copy as it is; train on" in error


def test_the_same_key_and_settings_give_the_same_bytes(
    run: Run, toy: Path, weights: Path, ungeneralizable: Path, tmp_path: Path
) -> None:
    assert run(*uge_arguments(toy, weights, tmp_path / "again")).code == 0
    assert bytes_of(tmp_path / "again") == bytes_of(ungeneralizable)
    assert run(*uge_arguments(toy, weights, tmp_path / "other"), "--epsilon", 8).code == 0
    assert json.loads((tmp_path / "other" / "manifest.json").read_text())["epsilon_255"] == 8
    assert bytes_of(tmp_path / "other")[FILE] != bytes_of(ungeneralizable)[FILE]


def test_a_sealed_copy_is_never_the_same_twice(run: Run, toy: Path, key: Path, published: Path, tmp_path: Path) -> None:
    assert run(*protect_arguments(toy, key, tmp_path / "again")).code == 0
    again, first = pixels(tmp_path / "again" / FILE), pixels(published / FILE)
    assert 0.4 < ((again ^ first) & 1).mean() < 0.6, "fresh letters"
    assert (again >> 1 == first >> 1).all(), "the same shift"


def test_train_with_a_key_of_initial_weights_and_without_any(
    run: Run, toy: Path, weights: Path, ungeneralizable: Path, tmp_path: Path
) -> None:
    recipient = ("--key", role(weights, "recipient"))
    out = tmp_path / "authorised"
    done = run("train", ungeneralizable, *recipient, "--test", toy, "--out", out)
    assert done.code == 0 and "accuracy" in done.stdout, done
    facts = json.loads((out / "run.json").read_text())
    assert facts["key"] and facts["recipe"]["epochs"] == 2 and 0 <= facts["accuracy"] <= facts["peak_accuracy"] <= 100
    assert sorted(file.name for file in out.iterdir()) == ["run.json", "weights.safetensors"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    named = ("train", ungeneralizable, *recipient, "--network", "mlp", "--out", tmp_path / "o")
    assert "says itself what to train; leave --network out" in run(*named).error
    done = run("train", ungeneralizable, "--network", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "plain")
    assert done.code == 0, done
    facts = json.loads((tmp_path / "plain" / "run.json").read_text())
    assert not facts["key"] and "accuracy" not in facts and len(facts["train_loss"]) == 1


def test_a_hacker_is_told_when_his_counter_measure_is_of_no_use(run: Run, toy: Path, tmp_path: Path) -> None:
    gray = tmp_path / "gray"
    for file in toy.rglob("*.png"):
        (gray / file.relative_to(toy)).parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").save(gray / file.relative_to(toy))
    base = ("attack", gray, "--test", gray, "--hacker", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "o")
    done = run(*base, "--countermeasure", "grayscale")
    assert done.code == 0 and "note: grayscale is of no use here: the images are gray already" in done.stderr


def test_a_folder_of_another_program_is_attacked_past_a_file_that_is_none(run: Run, toy: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(toy / "train", theirs)
    (theirs / "sea" / "broken.png").write_text("no image")
    base = ("attack", theirs, "--test", toy, "--hacker", "convnet:width=8", "--epochs", 30, "--out", tmp_path / "o")
    refused = run(*base)
    assert refused.code == 2 and "broken.png" in refused.error and "--skip-bad" in refused.error
    done = run(*base, "--skip-bad")
    assert done.code == 0 and "broken.png" in done.stderr, done
    (row,) = [json.loads(line) for line in (tmp_path / "o" / "records.jsonl").read_text().splitlines()]
    assert row["accuracy"] >= 60  # these are the originals; chance is 33


def test_test_images_of_other_classes_are_refused(run: Run, toy: Path, published: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    shutil.copytree(toy / "test" / "sea", others / "test" / "lake")
    shutil.copytree(toy / "test" / "river", others / "test" / "brook")
    told = "the test images differ from the published ones: "
    for arguments in (
        ("train", published, "--network", "mlp:width=8"),
        ("attack", published, "--hacker", "mlp:width=8"),
    ):
        done = run(*arguments, "--test", others, "--out", tmp_path / "o")
        assert done.code == 2 and told in done.error, done
    assert not (tmp_path / "o").exists()
