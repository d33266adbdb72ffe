import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin
from published_folders import EPSILON, key_for, make_set, perturbed, published, published_behind

from uge.data.images import ImageSet, pixel_sha256
from uge.errors import KeyFileError, PublishError
from uge.keys import Key
from uge.keys.keyed_view import views_digest, with_headroom
from uge.keys.signature import fingerprint_of
from uge.publish import _png_bytes, _read_png, load_published, publish, read_manifest, verify

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
        load_published(folder)
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
            if name != "SHA256SUMS"
        )
    )


def test_all_is_well(folder):
    for clean in (None, make_set()):
        result = verify(folder, clean=clean)
        assert result.ok and result.problems == () and result.images == 12
        assert result.epsilon_255 == (None if clean is None else EPSILON)


def test_one_changed_pixel(folder):
    image = _read_png((folder / CAT).read_bytes())
    image[2, 7, 7] ^= 1
    (folder / CAT).write_bytes(_png_bytes(image))
    found(folder, CAT, "pixels changed")
    refused(folder, CAT)


def test_the_same_pixels_in_another_file(folder):
    text = PngImagePlugin.PngInfo()
    text.add_text("owner", "somebody else")
    with Image.open(folder / CAT) as picture:
        picture.load()
    picture.save(folder / CAT, pnginfo=text)
    found(folder, CAT, "rewritten", "pixels unchanged")
    assert len(load_published(folder)) == 12


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
    "name", ["train/cat/more.png", "train/cat/.DS_Store", "notes.txt", "train/metadata.jsonl", "train/other/x.png"]
)
def test_an_extra_file(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"something")
    problems = verify(folder).problems
    assert f"{name}: extra, not published" in problems
    assert len(problems) == (2 if "other" in name else 1)  # the folder itself, too


def test_an_empty_extra_folder(folder):
    (folder / "train" / ".cache").mkdir()
    found(folder, "train/.cache/", "extra")


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
    (folder / SECOND_CAT).write_bytes(_png_bytes(stronger))
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
    assert "8, 8" in verify(folder, clean=make_set(size=(4, 4))).problems[0]
    shuffled = clean.subset(torch.randperm(12, generator=torch.Generator().manual_seed(0)))
    assert verify(folder, clean=shuffled).ok  # paired by name, not by place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.unlink(), "no published folder"),
        (lambda p: p.write_text("{"), "no manifest"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "no published folder"),
        (lambda p: p.write_text("[]"), "no manifest"),
        (lambda p: p.write_text('{"format_version": 2}'), "format version 2"),
        (lambda p: p.write_text('{"format_version": 1}'), "damaged"),
    ],
    ids=["missing", "cut", "bytes", "list", "version", "empty"],
)
def test_a_manifest_that_cannot_be_read(folder, change, words):
    change(folder / "manifest.json")
    for call in (verify, load_published, read_manifest):
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


# -- signatures and views --------------------------------------------------------------------------------------------


def problems_with(folder: Path, key: Key, clean: ImageSet | None = None) -> tuple[str, ...]:
    problems = verify(folder, clean=clean, key=key).problems
    assert all("\n" not in problem for problem in problems)
    return problems


def test_a_signature_is_checked_against_the_key_alone(tmp_path):
    clean = make_set()
    key, other = key_for(clean), key_for(clean)
    folder = tmp_path / "out"
    published(folder, clean, signers=[key])
    assert verify(folder).ok and verify(folder).signature == "not checked"
    assert verify(folder, key=key).ok and verify(folder, key=key).signature == "valid"
    result = verify(folder, key=other)
    assert result.signature == "wrong" and "use the key of this release" in result.problems[0]
    stored = json.loads((folder / "manifest.sig").read_text())
    assert [fingerprint_of(bytes.fromhex(s["public_key"])) for s in stored["signatures"]] == [key.fingerprint]


def test_every_recipient_finds_the_signature_of_his_protector(tmp_path):
    clean = make_set()
    keys = [key_for(clean) for _ in range(3)]
    published(tmp_path / "out", clean, signers=keys[:2])
    assert [verify(tmp_path / "out", key=key).signature for key in keys] == ["valid", "valid", "wrong"]


def test_a_folder_without_a_signature(tmp_path):
    clean = make_set()
    published(tmp_path / "out", clean)
    assert verify(tmp_path / "out").ok and verify(tmp_path / "out").signature == "none"
    (problem,) = problems_with(tmp_path / "out", key_for(clean))
    assert "has no manifest.sig" in problem


def test_a_forger_who_signs_with_a_key_of_his_own_is_found(tmp_path):
    """He edits the manifest, signs it, and rewrites the sums: all that travels with the copy agrees."""
    clean = make_set()
    key, forger = key_for(clean), key_for(clean)
    folder = tmp_path / "out"
    published(folder, clean, signers=[key])
    change_manifest(folder, lambda data: data.update(method="harmless"))
    public, signature = forger.sign((folder / "manifest.json").read_bytes())
    pair = {"public_key": public.hex(), "signature": signature.hex()}
    (folder / "manifest.sig").write_text(json.dumps({"algorithm": "ed25519", "signatures": [pair]}))
    rewrite_sums(folder)
    assert verify(folder).ok
    (problem,) = problems_with(folder, key)
    assert "signed by" in problem
    pair["public_key"] = key.sign(b"")[0].hex()  # the true public key beside his own signature
    (folder / "manifest.sig").write_text(json.dumps({"algorithm": "ed25519", "signatures": [pair]}))
    rewrite_sums(folder)
    (problem,) = problems_with(folder, key)
    assert "edited after it was signed" in problem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"algorithm": "rsa"}',
        b'{"algorithm": "ed25519", "signatures": [{}]}',
        b'{"algorithm": "ed25519", "signatures": [{"public_key": "zz", "signature": ""}]}',
    ],
)
def test_a_signature_that_is_none(content, tmp_path):
    clean = make_set()
    key = key_for(clean)
    published(tmp_path / "out", clean, signers=[key])
    (tmp_path / "out" / "manifest.sig").write_bytes(content)
    first, second = problems_with(tmp_path / "out", key)
    assert first.startswith("manifest.sig: edited") and "no signature, or damaged" in second


@pytest.mark.parametrize("change", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes() + b" ")])
def test_a_signature_file_is_listed_in_the_sums(change, tmp_path):
    clean = make_set()
    published(tmp_path / "out", clean, signers=[key_for(clean)])
    change(tmp_path / "out" / "manifest.sig")
    found(tmp_path / "out", "manifest.sig")


@pytest.mark.parametrize("headroom", [False, True])
@pytest.mark.parametrize("kind", ["null-space", "reversible"])
def test_a_key_with_a_view_shows_that_all_views_are_identical(kind, headroom, tmp_path):
    clean = make_set()
    key = key_for(clean, kind)
    manifest = published_behind(tmp_path / "out", clean, key, headroom=headroom)
    result = verify(tmp_path / "out", clean=clean, key=key)
    assert result.ok and result.views == 12 and result.epsilon_255 == EPSILON
    reference = with_headroom(clean.images, EPSILON) if headroom else clean.images
    views = key.view.integer_view_of_originals(reference)
    assert [*manifest.nonces] == key.view.nonces(reference)
    assert result.views_sha256 == views_digest(views)
    change = load_published(tmp_path / "out").images.double() - reference.double()
    assert result.budget_used == pytest.approx(change.square().mean().sqrt().item() / EPSILON, abs=1e-4)
    assert verify(tmp_path / "out", clean=clean).views is None
    assert verify(tmp_path / "out", key=key).views is None


def test_a_copy_that_left_the_null_space_is_told(tmp_path):
    """Even signed by the protector: one image published with noise outside of the null space."""
    clean = make_set()
    key = key_for(clean, "null-space")
    nonces = key.view.nonces(clean.images)
    copy = clean.images.clone()
    copy[3] = perturbed(clean.images)[3]
    arguments = {"method": "null-space", "settings": {}, "epsilon_255": EPSILON, "signers": [key]}
    publish(clean, copy, tmp_path / "out", nonces=nonces, **arguments)
    (problem,) = problems_with(tmp_path / "out", key, clean)
    assert problem == "views: 11 of 12 are identical to those of the originals"
    assert verify(tmp_path / "out", clean=clean, key=key).views_sha256 is None


def test_a_null_space_key_and_a_copy_without_nonces(tmp_path):
    clean = make_set()
    key = key_for(clean, "null-space")
    published(tmp_path / "out", clean, signers=[key])
    (problem,) = problems_with(tmp_path / "out", key, clean)
    assert "not made with a key that has a view" in problem


def test_equal_pixels_with_different_nonces_stop_publishing(tmp_path):
    clean = make_set()
    copy = clean.images.clone()
    copy[4] = clean.images[1].clone()
    clean = clean.with_images(copy)
    nonces = [bytes([number] * 12) for number in range(12)]
    arguments = {"method": "null-space", "settings": {}, "epsilon_255": EPSILON}
    with pytest.raises(PublishError, match=r"train/cat/00001.png and train/cat/00004.png would have the same pixels"):
        publish(clean, copy, tmp_path / "out", nonces=nonces, **arguments)
    assert not list(tmp_path.iterdir())
    nonces[4] = nonces[1]
    manifest = publish(clean, copy, tmp_path / "out", nonces=nonces, **arguments)
    assert manifest.nonces == tuple(nonces) and load_published(tmp_path / "out").nonces == tuple(nonces)


def test_a_recipient_cannot_publish(tmp_path):
    clean = make_set()
    with pytest.raises(KeyFileError, match="cannot sign"):
        published(tmp_path / "out", clean, signers=[replace(key_for(clean), signing_key=None)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("nonce", ["", "00", "G" * 24, "A" * 24, 7, None])
def test_a_nonce_that_is_none(nonce, tmp_path):
    clean = make_set()
    published_behind(tmp_path / "out", clean, key_for(clean, "null-space"))
    change_manifest(tmp_path / "out", lambda data: data["images"][2].update(nonce=nonce))
    with pytest.raises(PublishError, match=r"damaged|some images only"):
        read_manifest(tmp_path / "out")
