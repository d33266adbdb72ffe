"""The whole way: protect, verify, open, train, attack; by default, and with a key of one's own."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from uge.errors import PublishError

from .conftest import SMALL, Options, Run, assert_all_open, bytes_of, pixels, protect_arguments, role

# -- sealed copies ---------------------------------------------------------------------------------------------------


def test_without_a_key_protect_draws_one_and_ends_with_four_lines(run: Run, toy: Path, tmp_path: Path) -> None:
    done = run("protect", toy, "--no-passphrase", "--out", tmp_path / "C", *SMALL).ok()
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
    assert_all_open(run, tmp_path / "C", toy)


def test_a_new_key_can_be_encrypted_beside_the_copy(run: Run, toy: Path, passphrase: Path, tmp_path: Path) -> None:
    lock = ("--passphrase-file", passphrase)
    run("protect", toy, *lock, "--out", tmp_path / "C", *SMALL).ok()
    recipient = role(tmp_path / "C", "recipient")
    assert "is sealed; give its passphrase" in run("verify", tmp_path / "C", "--key", recipient).error
    run("verify", tmp_path / "C", "--key", recipient, *lock).ok()


def test_a_failure_before_anything_is_begun_leaves_no_new_key(run: Run, toy: Path, tmp_path: Path) -> None:
    small = ("--image-size", 8, "--no-passphrase", "--out", tmp_path / "C")  # no room for a letter
    assert run("protect", toy, *small).error
    assert not [*tmp_path.iterdir()]


def test_a_key_and_a_picture_that_are_there_are_kept_and_told_of(
    run: Run, toy: Path, passphrase: Path, tmp_path: Path
) -> None:
    c = tmp_path / "C"
    again = ("protect", toy, "--out", c, *SMALL)
    run(*again, "--no-passphrase").ok()
    pair = [role(c, each).read_bytes() for each in ("protector", "recipient")]
    shutil.rmtree(c)
    (tmp_path / "C.png").write_bytes(b"mine")
    done = run(*again, "--no-passphrase").ok()
    assert f"seals with the key that is there already, {c}.protector.uge" in done.stderr
    assert f"{c}.png was there before, and is left as it is." in done.stdout
    assert (tmp_path / "C.png").read_bytes() == b"mine"
    shutil.rmtree(c)
    assert "is there already, and open" in run(*again, "--passphrase-file", passphrase).error
    assert not c.exists() and pair == [role(c, each).read_bytes() for each in ("protector", "recipient")]


def test_a_failure_leaves_the_key_that_another_process_drew_meanwhile(
    run: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where two terminals give the same command, and one of them waits for a passphrase."""
    command, c = importlib.import_module("uge.cli.protect"), tmp_path / "C"

    def asked(*_: object) -> None:
        run("protect", toy, "--no-passphrase", "--out", c, *SMALL).ok()

    monkeypatch.setattr(command.options, "new_passphrase", asked)
    with pytest.raises(PublishError, match="is not empty"):
        command.protect(str(toy), c, set_=list(SMALL[1::2]))
    assert_all_open(run, c, toy)


def test_a_protectors_file_of_another_name_is_not_what_the_recipient_gets(
    run: Run, toy: Path, key: Path, tmp_path: Path
) -> None:
    file = tmp_path / "signing.key"
    shutil.copy(role(key, "protector"), file)
    done = run("protect", toy / "train", "--key", file, "--out", tmp_path / "C", *SMALL).ok()
    assert f"the recipient's file of {file} to the recipient alone" in done.stdout
    run(*shlex.split(done.stdout.splitlines()[-1].removeprefix("Next: uge "))).ok()


def test_what_is_said_to_be_next_works_for_smaller_copies(run: Run, toy: Path, tmp_path: Path) -> None:
    done = run("protect", toy / "train", "--image-size", 20, "--no-passphrase", "--out", tmp_path / "C", *SMALL).ok()
    words = shlex.split(done.stdout.splitlines()[-1].removeprefix("Next: "))
    assert words[1] == "verify" and "views: 48 of 48 identical" in run(*words[1:]).ok().stdout


def test_verify_opens_every_letter(run: Run, toy: Path, mine: Options, published: Path) -> None:
    done = run("verify", published, *mine, "--clean", toy).ok()
    signature, letters, views, verdict = done.stdout.splitlines()
    assert signature.startswith("signature: valid, by the key of fingerprint ")
    assert letters == "letters: 48 of 48 open"
    assert views == "views: 48 of 48 identical to those of the originals"
    assert re.search(r"48 images, epsilon \d+/255 measured; all as published", verdict)
    assert "signature: not checked: give --key" in run("verify", published).stdout


def test_training_on_the_copy_is_training_on_the_originals(
    run: Run, toy: Path, key: Path, mine: Options, published: Path, tmp_path: Path
) -> None:
    assert "48 images opened" in run("open", published, *mine, "--out", tmp_path / "mine").ok().stdout
    run(*protect_arguments(tmp_path / "mine", key, tmp_path / "other")).ok()
    for copy, out in ((published, "a"), (tmp_path / "other", "b")):
        how = (*mine, "--test", toy, "--epochs", 2, "--network", "mlp:width=8", "--out", tmp_path / out)
        assert "accuracy" in run("train", copy, *how).ok().stdout
    first, second = (bytes_of(tmp_path / out) for out in "ab")
    assert first["weights.safetensors"] == second["weights.safetensors"]
    assert bytes_of(published) != bytes_of(tmp_path / "other")
    run("train", published, *mine, "--epochs", 1, "--out", tmp_path / "c").ok()
    told = [json.loads((tmp_path / out / "run.json").read_text()) for out in "ac"]
    assert [facts["network"] for facts in told] == ["mlp(width=8)", "vgg(depth=8,width=16)"]
    assert all(facts["key"] for facts in told) and [facts["recipe"]["epochs"] for facts in told] == [2, 1]


def test_a_student_queries_the_recipients_network(
    run: Run, toy: Path, mine: Options, published: Path, tmp_path: Path
) -> None:
    out = tmp_path / "attacks"
    base = ("attack", published, "--test", toy, "--out", out, "--epochs", 1, "--hacker", "mlp:width=8")
    run(*base).ok()
    assert "distillation:soft" in run(*base, "--countermeasure", "distillation:soft", *mine).ok().stdout
    first = (out / "records.jsonl").read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [(row["kind"], row["countermeasure"], row["knows"]) for row in rows] == [
        ("hacker", "none", "nothing"),
        ("authorised", "none", "key"),
        ("hacker", "distillation:soft", "model outputs"),
    ]
    again = run(*base).ok()
    assert "mlp(width=8)" in again.stdout and (out / "records.jsonl").read_text() == first
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


def readers(copy: Path, toy: Path) -> list[Options]:
    """Every command that reads a copy."""
    return [("open", copy), ("train", copy), ("attack", copy, "--test", toy), ("audit", copy, "--test", toy)]


@pytest.mark.parametrize("change", [change_a_pixel, through_jpeg])
def test_changed_pixels_are_one_clear_line_for_everybody(
    run: Run, toy: Path, mine: Options, copy: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    change(copy)
    many = "48 files: pixels changed; the first is train/forest/000.png"
    expected = f"{FILE}: pixels changed" if change is change_a_pixel else many
    assert problems(run, copy) == problems(run, copy, *mine, "--clean", toy) == [expected]
    opens, *others = readers(copy, toy)
    for call in (opens, ("open", copy / FILE)):
        assert "do not open with this key" in run(*call, *mine, "--out", tmp_path / "o").error
    for call in others:
        assert "lossy formats and resizing change pixels" in run(*call, *mine, "--out", tmp_path / "o").error
        assert "run 'uge verify" in run(*call, "--out", tmp_path / "o").error
    assert not (tmp_path / "o").exists()


def test_a_wrong_key_is_one_clear_line_for_everybody(run: Run, toy: Path, copy: Path, tmp_path: Path) -> None:
    run("key", "new", "--no-passphrase", "--out", tmp_path / "eve").ok()
    hers, out = ("--key", role(tmp_path / "eve", "recipient")), ("--out", tmp_path / "o")
    (problem,) = problems(run, copy, *hers, "--clean", toy)
    assert "use the key of this release" in problem
    assert "do not open with this key" in run("open", copy / FILE, *hers, *out).error
    for call in readers(copy, toy):
        assert "use the key of this release" in run(*call, *hers, *out).error
    assert not (tmp_path / "o").exists()


def test_with_a_key_whatever_it_did_not_sign_is_refused(
    run: Run, toy: Path, mine: Options, copy: Path, tmp_path: Path
) -> None:
    manifest, signature = copy / "manifest.json", copy / "manifest.sig"
    manifest.write_text(manifest.read_text().replace('"label": 0', '"label": 1', 1))
    for told, goes_next in (
        ("was edited after it was signed", signature),
        ("has no manifest.sig", manifest),
        ("is no published folder: cannot read manifest.json", None),
    ):
        for call in readers(copy, toy):
            assert told in run(*call, *mine, "--out", tmp_path / "o").error, call
        if goes_next is not None:
            assert told in problems(run, copy, *mine)[0]
            goes_next.unlink()
    assert not (tmp_path / "o").exists()


def test_a_bad_file_of_a_part_is_named_or_passed_over(run: Run, mine: Options, copy: Path, tmp_path: Path) -> None:
    part = copy / "train/sea"
    (part / "notes.png").write_text("no picture")
    assert "1 of 17 images do not open" in run("open", part, *mine, "--out", tmp_path / "o").error
    done = run("open", part, *mine, "--out", tmp_path / "o", "--skip-bad").ok()
    assert done.stderr.startswith("note: 1 of 17 images do not open") and "notes.png" in done.stderr


# -- the paper's method, and no key at all ---------------------------------------------------------------------------


def test_the_papers_method_keeps_its_bound(run: Run, toy: Path, weights: Path, ungeneralizable: Path) -> None:
    manifest = json.loads((ungeneralizable / "manifest.json").read_text())
    assert len(manifest["images"]) == len(list(ungeneralizable.glob("train/*/*.png"))) == 48
    assert manifest["method"] == "uge" and 1 <= manifest["epsilon_measured_255"] <= manifest["epsilon_255"]
    assert manifest["settings"]["run_epochs"] == 1 and "seed" not in manifest["settings"]
    assert not ungeneralizable.with_name("uge.partial").exists()
    checked = run("verify", ungeneralizable, "--clean", toy, "--key", role(weights, "recipient")).ok()
    assert "signature: valid" in checked.stdout and "views" not in checked.stdout
    error = run("open", ungeneralizable, "--key", role(weights, "recipient"), "--out", toy / "o").error
    assert "sees the copy as it is; train on" in error


def test_train_with_a_key_of_initial_weights_and_without_any(
    run: Run, toy: Path, weights: Path, ungeneralizable: Path, tmp_path: Path
) -> None:
    recipient = ("--key", role(weights, "recipient"))
    out = tmp_path / "authorised"
    done = run("train", ungeneralizable, *recipient, "--test", toy, "--out", out).ok()
    assert "accuracy" in done.stdout
    facts = json.loads((out / "run.json").read_text())
    assert facts["key"] and facts["recipe"]["epochs"] == 2 and 0 <= facts["accuracy"] <= facts["peak_accuracy"] <= 100
    assert sorted(file.name for file in out.iterdir()) == ["run.json", "weights.safetensors"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    named = ("train", ungeneralizable, *recipient, "--network", "mlp", "--out", tmp_path / "o")
    assert "says itself what to train; leave --network out" in run(*named).error
    done = run("train", ungeneralizable, "--network", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "plain").ok()
    facts = json.loads((tmp_path / "plain" / "run.json").read_text())
    assert not facts["key"] and "accuracy" not in facts and len(facts["train_loss"]) == 1


def test_a_hacker_is_told_when_his_counter_measure_is_of_no_use(run: Run, toy: Path, tmp_path: Path) -> None:
    gray = tmp_path / "gray"
    for file in toy.rglob("*.png"):
        (gray / file.relative_to(toy)).parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").save(gray / file.relative_to(toy))
    base = ("attack", gray, "--test", gray, "--hacker", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "o")
    done = run(*base, "--countermeasure", "grayscale").ok()
    assert "note: grayscale is of no use here: the images are gray already" in done.stderr


def test_a_folder_of_another_program_is_attacked_past_a_file_that_is_none(run: Run, toy: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(toy / "train", theirs)
    (theirs / "sea" / "broken.png").write_text("no image")
    base = ("attack", theirs, "--test", toy, "--hacker", "convnet:width=8", "--epochs", 30, "--out", tmp_path / "o")
    error = run(*base).error
    assert "broken.png" in error and "--skip-bad" in error
    assert "broken.png" in run(*base, "--skip-bad").ok().stderr
    (row,) = [json.loads(line) for line in (tmp_path / "o" / "records.jsonl").read_text().splitlines()]
    assert row["accuracy"] >= 60  # these are the originals; chance is 33


def test_test_images_of_other_classes_are_refused(run: Run, toy: Path, published: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    shutil.copytree(toy / "test" / "sea", others / "test" / "lake")
    shutil.copytree(toy / "test" / "river", others / "test" / "brook")
    told = "the test images differ from the published ones: "
    for arguments in (("train", published, "--network", "mlp"), ("attack", published, "--hacker", "mlp")):
        assert told in run(*arguments, "--test", others, "--out", tmp_path / "o").error
    assert not (tmp_path / "o").exists()
