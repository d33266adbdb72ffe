import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin

from uge.copy import Copy, publish, read_manifest, verify
from uge.copy.files import png_bytes, read_png
from uge.data.images import ImageSet, pixel_sha256
from uge.errors import KeyFileError, PublishError
from uge.keys import Key, SealedKey

from .copies import EPSILON, make_set, perturbed, published, published_sealed, sealed, weights_key

CAT, SECOND_CAT, ZEBRA = "train/cat/00001.png", "train/cat/00004.png", "train/zebra/00000.png"


@pytest.fixture
def folder(tmp_path) -> Path:
    published(tmp_path / "out")
    return tmp_path / "out"


def found(folder: Path, *words: str, clean: ImageSet | None = None, count: int = 1) -> None:
    """`verify` finds `count` problems, each in one line, and the first has all these words."""
    problems = verify(folder, clean=clean).problems
    assert len(problems) == count, problems
    assert all("\n" not in problem for problem in problems)
    for word in words:
        assert word in problems[0], problems


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(PublishError) as error:
        Copy.read(folder)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def change_manifest(folder: Path, change, sums: bool = False) -> None:
    """Edit manifest.json; with `sums`, rewrite SHA256SUMS so that it agrees again."""
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    if sums:
        rewrite_sums(folder)


def rewrite_sums(folder: Path) -> None:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    (folder / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
            for name in files
            if name not in ("SHA256SUMS", ".gitattributes")
        )
    )


def test_all_is_well(folder):
    for clean in (None, make_set()):
        result = verify(folder, clean=clean)
        assert result.ok and result.problems == () and result.images == 12
        assert result.epsilon_255 == (None if clean is None else EPSILON)


def test_one_changed_pixel(folder):
    image = read_png((folder / CAT).read_bytes())
    image[2, 7, 7] ^= 1
    (folder / CAT).write_bytes(png_bytes(image))
    found(folder, CAT, "pixels changed")
    refused(folder, CAT)


def test_the_same_pixels_in_another_file(folder):
    text = PngImagePlugin.PngInfo()
    text.add_text("owner", "somebody else")
    with Image.open(folder / CAT) as picture:
        picture.load()
    picture.save(folder / CAT, pnginfo=text)
    found(folder, CAT, "rewritten", "pixels unchanged")
    assert len(Copy.read(folder).images) == 12


def test_a_file_moved_to_another_class(folder):
    (folder / CAT).rename(folder / "train/zebra/00001.png")
    found(folder, CAT, "label swapped", "train/zebra/00001.png", count=2)
    refused(folder, CAT)


def test_two_files_swapped(folder):
    first, second = (folder / CAT).read_bytes(), (folder / ZEBRA).read_bytes()
    (folder / CAT).write_bytes(second)
    (folder / ZEBRA).write_bytes(first)
    found(folder, ZEBRA, "label swapped", CAT, count=2)
    refused(folder, ZEBRA)


def test_a_label_edited_in_the_manifest(folder):
    def swap(data):
        data["images"][1]["label"] = 0

    change_manifest(folder, swap)
    found(folder, "manifest.json", "edited", count=2)
    change_manifest(folder, swap, sums=True)
    found(folder, CAT, "label swapped", "'zebra'")
    refused(folder, CAT)


def test_a_label_swapped_with_care_is_found_with_the_originals(folder):
    """File moved, manifest and sums rewritten to match: only the originals tell."""
    (folder / CAT).rename(folder / "train/zebra/00001.png")
    change_manifest(folder, lambda d: d["images"][1].update(file="train/zebra/00001.png", label=0), sums=True)
    assert verify(folder).ok
    found(folder, "train/zebra/00001.png", "no original", clean=make_set(), count=2)


def test_a_missing_file(folder):
    (folder / CAT).unlink()
    found(folder, CAT, "missing")
    refused(folder, CAT)


@pytest.mark.parametrize("name", ["README.md", "SHA256SUMS"])
def test_a_missing_companion(folder, name):
    (folder / name).unlink()
    found(folder, name)


@pytest.mark.parametrize(
    "name", ["train/cat/more.png", "notes.txt", ".huggingface.yaml", "train/metadata.jsonl", "train/other/x.png"]
)
def test_an_extra_file(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"something")
    problems = verify(folder).problems
    assert f"{name}: extra, not published" in problems
    assert len(problems) == (2 if "other" in name else 1)  # the folder itself, too


def test_an_empty_extra_folder(folder):
    (folder / "train" / "other").mkdir()
    found(folder, "train/other/", "extra")


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text, no picture"])
def test_an_unreadable_image(folder, change):
    (folder / CAT).write_bytes(change((folder / CAT).read_bytes()))
    found(folder, CAT, "unreadable")
    refused(folder, CAT)


def test_an_edited_manifest(folder):
    change_manifest(folder, lambda data: data.update(method="another"))
    found(folder, "manifest.json", "edited")


def test_an_edited_card(folder):
    (folder / "README.md").write_text("Free for everybody")
    found(folder, "README.md", "edited")


def test_edited_sums(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(lines[1:]))
    found(folder, ZEBRA, "not listed")
    (folder / "SHA256SUMS").write_text("".join([*lines, f"{'0' * 64}  train/cat/ghost.png\n"]))
    found(folder, "ghost.png", "listed")
    (folder / "SHA256SUMS").write_text("".join([*lines, "what is this\n"]))
    found(folder, "SHA256SUMS", "1 damaged")


def test_epsilon_larger_than_stated(folder):
    change_manifest(folder, lambda data: data.update(epsilon_255=4, epsilon_measured_255=4), sums=True)
    assert verify(folder).ok  # nobody can tell without the originals
    result = verify(folder, clean=make_set())
    assert result.epsilon_255 == EPSILON and len(result.problems) == 1
    assert "epsilon: 8/255" in result.problems[0] and "states 4/255" in result.problems[0]


def test_epsilon_of_one_image(folder):
    """One image replaced by a stronger copy, hashes and sums rewritten."""
    stronger = perturbed(make_set().images, 11)[4]
    (folder / SECOND_CAT).write_bytes(png_bytes(stronger))
    change_manifest(folder, lambda data: data["images"][4].update(sha256=pixel_sha256(stronger)), sums=True)
    assert verify(folder).ok
    found(folder, "epsilon: 11/255", SECOND_CAT, clean=make_set())


def test_a_smaller_epsilon_than_measured_is_said(folder):
    change_manifest(folder, lambda data: data.update(epsilon_measured_255=7), sums=True)
    found(folder, "measured 8/255", "says 7/255", clean=make_set())


def test_other_originals(folder):
    clean = make_set()
    found(folder, "train/T-shirt-top/00011.png", "no original", clean=clean.subset(torch.arange(11)))
    assert verify(folder, clean=make_set(15)).problems[0].endswith("has an original, but is not published")
    assert "epsilon" in verify(folder, clean=make_set(seed=9)).problems[0]
    assert "12, 12" in verify(folder, clean=make_set(size=(4, 4))).problems[0]
    shuffled = clean.subset(torch.randperm(12, generator=torch.Generator().manual_seed(0)))
    assert verify(folder, clean=shuffled).ok  # paired by name, not by place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.unlink(), "no published folder"),
        (lambda p: p.write_text("{"), "no manifest"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "no manifest"),
        (lambda p: p.write_text("[]"), "no manifest"),
        (lambda p: p.write_text('{"format_version": 1}'), "format version 1"),
        (lambda p: p.write_text('{"format_version": 3}'), "damaged"),
    ],
    ids=["missing", "cut", "bytes", "list", "version", "empty"],
)
def test_a_manifest_that_cannot_be_read(folder, change, words):
    change(folder / "manifest.json")
    for call in (verify, read_manifest):
        with pytest.raises(PublishError, match=words) as error:
            call(folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["images"][0].update(file="train/../../secret.png"), "is not train/"),
        (lambda d: d["images"][0].update(file="/etc/passwd"), "is not train/"),
        (lambda d: d["images"][0].update(file="train/../x.png"), "is not train/"),
        (lambda d: d["images"][0].update(label=3), "label 3"),
        (lambda d: d["images"].append(d["images"][0]), "twice"),
        (lambda d: d.update(images=[]), "no image"),
        (lambda d: d.update(epsilon_255="much"), "damaged"),
        (lambda d: d.update(surprise=1), "damaged"),
    ],
)
def test_a_manifest_that_makes_no_sense(folder, change, words):
    change_manifest(folder, change)
    with pytest.raises(PublishError, match=words) as error:
        verify(folder)
    assert "\n" not in str(error.value)


# -- many files, signatures, letters ---------------------------------------------------------------------------------


def test_many_files_with_one_problem_are_one_line(folder):
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".jpg"), quality=95)
        with Image.open(path.with_suffix(".jpg")) as picture:
            picture.save(path)
        path.with_suffix(".jpg").unlink()
    found(folder, "12 files: pixels changed; the first is train/zebra/00000.png", clean=make_set())


@pytest.fixture
def key() -> SealedKey:
    return SealedKey.draw()


@pytest.fixture
def opening(key, tmp_path) -> Path:
    """A copy with letters."""
    published_sealed(tmp_path / "sealed", make_set(), key)
    return tmp_path / "sealed"


def test_every_letter_opens_and_every_view_is_that_of_the_original(opening, key):
    result = verify(opening, clean=make_set(), key=key)
    assert result.ok and (result.signature, result.letters, result.views) == ("valid", 12, 12)
    assert 0 < result.epsilon_255 <= EPSILON
    result = verify(opening, key=key)
    assert result.ok and (result.signature, result.letters, result.views) == ("valid", 12, None)
    result = verify(opening, clean=make_set())
    assert result.ok and (result.signature, result.letters, result.views) == ("not checked", None, None)


def problem_with(opening: Path, key: Key, clean: ImageSet | None = None) -> str:
    (problem,) = verify(opening, clean=clean, key=key).problems
    assert "\n" not in problem
    return problem


def test_a_wrong_key_is_one_line(opening):
    problem = problem_with(opening, SealedKey.draw(), make_set())
    assert problem.startswith("signature: ") and "use the key of this release" in problem
    result = verify(opening, key=SealedKey.draw())
    assert (result.signature, result.letters, result.views) == ("wrong", None, None)


def test_a_changed_pixel_is_one_line(opening, key):
    image = read_png((opening / CAT).read_bytes())
    image[0, 3, 3] ^= 2
    (opening / CAT).write_bytes(png_bytes(image))
    assert problem_with(opening, key, make_set()) == f"{CAT}: pixels changed"
    result = verify(opening, clean=make_set(), key=key)
    assert (result.letters, result.views) == (11, 11)


def test_letters_that_the_protector_spoilt_are_told(key, tmp_path):
    """Signed all the same: one letter that does not open, then one image published under another's name."""
    clean = make_set()
    options = {"method": "sealed", "settings": {}, "epsilon_255": EPSILON, "signers": [key]}
    copies = sealed(clean.images, key)
    spoilt = copies.clone()
    spoilt[3, 0, 0, 0] ^= 1
    publish(clean, spoilt, tmp_path / "spoilt", **options)
    assert problem_with(tmp_path / "spoilt", key) == "letters: 11 of 12 open with this key"
    other = clean.with_images(clean.images.clone())
    other.images[4, 0, 5, 5] ^= 4
    publish(other, sealed(other.images, key), tmp_path / "other", **(options | {"epsilon_255": None}))
    assert problem_with(tmp_path / "other", key, clean).startswith("views: 11 of 12 are identical")


def test_a_key_of_initial_weights_checks_the_signature_alone(tmp_path):
    clean = make_set()
    key = weights_key(clean)
    published(tmp_path / "out", clean, signers=[key])
    result = verify(tmp_path / "out", clean=clean, key=key)
    assert result.ok and (result.signature, result.letters, result.views) == ("valid", None, None)


def test_whatever_is_not_signed_by_the_key_is_refused(opening, key):
    """Labels exchanged in the manifest, sums made to agree; the signature taken away; the manifest, too."""

    def exchange(data):
        for at, label, file in ((0, 1, CAT), (1, 0, ZEBRA)):
            data["images"][at] |= {"label": label, "file": file}

    (opening / CAT).rename(opening / "x")
    (opening / ZEBRA).rename(opening / CAT)
    (opening / "x").rename(opening / ZEBRA)
    change_manifest(opening, exchange, sums=True)
    assert verify(opening).ok, "without a key nobody can tell"
    assert "edited after it was signed" in problem_with(opening, key)
    (opening / "manifest.sig").unlink()
    rewrite_sums(opening)
    assert verify(opening).ok
    assert "has no manifest.sig" in problem_with(opening, key)
    assert verify(opening, key=key).signature == "none"
    (opening / "manifest.json").unlink()
    with pytest.raises(PublishError, match="is no published folder"):
        verify(opening, key=key)


def test_every_recipient_finds_the_signature_of_his_key(tmp_path):
    clean = make_set()
    keys = [weights_key(clean) for _ in range(2)]
    published(tmp_path / "out", clean, signers=keys)
    assert all(verify(tmp_path / "out", key=key).signature == "valid" for key in keys)


@pytest.mark.parametrize("text", ["", "[]", '{"algorithm": "rsa", "signatures": []}', '{"algorithm": "ed25519"}'])
def test_a_signature_that_is_none(opening, key, text):
    (opening / "manifest.sig").write_text(text)
    rewrite_sums(opening)
    assert "is no signature, or damaged" in problem_with(opening, key)


def test_a_recipient_cannot_publish(key, tmp_path):
    with pytest.raises(KeyFileError, match="cannot sign"):
        published(tmp_path / "out", signers=[replace(key, signing_key=None)])
    assert not list(tmp_path.iterdir())
