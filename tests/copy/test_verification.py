import hashlib
import io
import json
from collections.abc import Callable
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

from ..refusals import refused
from .copies import EPSILON, content, make_set, perturbed, published, sealed_by, weights_key

CAT, SECOND_CAT, ZEBRA = "train/cat/00001.png", "train/cat/00004.png", "train/zebra/00000.png"
MOVED = "train/zebra/00001.png"


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


def change_manifest(folder: Path, change, sums: bool = False) -> None:
    """Edit manifest.json; with `sums`, rewrite SHA256SUMS so that it agrees again."""
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    if sums:
        rewrite_sums(folder)


def facts(**changed: object) -> Callable[[Path], None]:
    return lambda folder: change_manifest(folder, lambda data: data.update(changed))


def first_entry(**changed: object) -> Callable[[Path], None]:
    return lambda folder: change_manifest(folder, lambda data: data["images"][0].update(changed))


def rewrite_sums(folder: Path) -> None:
    files = {name: data for name, data in content(folder).items() if name not in ("SHA256SUMS", ".gitattributes")}
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_all_is_well(folder):
    for clean in (None, make_set()):
        result = verify(folder, clean=clean)
        assert result.ok and result.problems == () and result.images == 12
        assert result.epsilon_255 == (None if clean is None else EPSILON)


def edit(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def with_a_pixel_changed(data: bytes) -> bytes:
    image = read_png(data)
    image[2, 7, 7] ^= 1
    return png_bytes(image)


def with_a_text(data: bytes) -> bytes:
    """The same pixels in another file."""
    text, file = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("owner", "somebody else")
    Image.open(io.BytesIO(data)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def swap(folder: Path) -> None:
    first, second = (folder / CAT).read_bytes(), (folder / ZEBRA).read_bytes()
    edit(folder / CAT, lambda _: second)
    edit(folder / ZEBRA, lambda _: first)


CHANGES = [  # what is done, what is found of it, in how many problems, whether the images can be read all the same
    (lambda f: edit(f / CAT, with_a_pixel_changed), [CAT, "pixels changed"], 1, False),
    (lambda f: edit(f / CAT, with_a_text), [CAT, "rewritten", "pixels unchanged"], 1, True),
    (lambda f: edit(f / CAT, lambda data: data[: len(data) // 2]), [CAT, "unreadable"], 1, False),
    (lambda f: edit(f / CAT, lambda _: b"text, no picture"), [CAT, "unreadable"], 1, False),
    (lambda f: (f / CAT).rename(f / MOVED), [CAT, "label swapped", MOVED], 2, False),
    (swap, [ZEBRA, "label swapped", CAT], 2, False),
    (lambda f: (f / CAT).unlink(), [CAT, "missing"], 1, False),
    (lambda f: (f / "README.md").unlink(), ["README.md"], 1, True),
    (lambda f: (f / "SHA256SUMS").unlink(), ["SHA256SUMS"], 1, True),
    (lambda f: edit(f / "README.md", lambda _: b"Free for everybody"), ["README.md", "edited"], 1, True),
    (facts(method="another"), ["manifest.json", "edited"], 1, True),
    (lambda f: (f / "train" / "other").mkdir(), ["train/other/", "extra"], 1, True),
]


@pytest.mark.parametrize(("change", "told", "count", "readable"), CHANGES)
def test_whatever_is_changed_is_found(folder, change, told, count, readable):
    change(folder)
    found(folder, *told, count=count)
    if readable:
        assert len(Copy.read(folder).images) == 12
    else:
        with refused(PublishError, "", told[0]):
            Copy.read(folder)


def test_a_label_edited_in_the_manifest(folder):
    def swap(data):
        data["images"][1]["label"] = 0

    change_manifest(folder, swap)
    found(folder, "manifest.json", "edited", count=2)
    change_manifest(folder, swap, sums=True)
    found(folder, CAT, "label swapped", "'zebra'")
    with refused(PublishError, "", CAT):
        Copy.read(folder)


def test_a_label_swapped_with_care_is_found_with_the_originals(folder):
    """File moved, manifest and sums rewritten to match: only the originals tell."""
    (folder / CAT).rename(folder / MOVED)
    change_manifest(folder, lambda d: d["images"][1].update(file=MOVED, label=0), sums=True)
    assert verify(folder).ok
    found(folder, MOVED, "no original", clean=make_set(), count=2)


@pytest.mark.parametrize(
    "name", ["train/cat/more.png", "notes.txt", ".huggingface.yaml", "train/metadata.jsonl", "train/other/x.png"]
)
def test_an_extra_file(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"something")
    problems = verify(folder).problems
    assert f"{name}: extra, not published" in problems
    assert len(problems) == (2 if "other" in name else 1)  # the folder itself, too


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
        (lambda f: (f / "manifest.json").unlink(), "no published folder"),
        *(
            (lambda f, data=data: (f / "manifest.json").write_bytes(data), "no manifest")
            for data in (b"{", b"\xff\xfe", b"[]")
        ),
        (facts(format_version=1), "format version 1"),
        (lambda f: (f / "manifest.json").write_text('{"format_version": 3}'), "damaged"),
        (first_entry(file="train/../../secret.png"), "is not train/"),
        (first_entry(file="/etc/passwd"), "is not train/"),
        (first_entry(file="train/../x.png"), "is not train/"),
        (first_entry(file="train/cat/" + "x" * 300 + ".png"), "is not train/"),
        (first_entry(file="train/cat/\udcff.png"), "no manifest of uge"),
        (first_entry(label=3), "label 3"),
        (lambda f: change_manifest(f, lambda d: d["images"].append(d["images"][0])), "twice"),
        (facts(images=[]), "no image"),
        (facts(surprise=1), "damaged"),
        (facts(epsilon_255="much"), "damaged"),
        (facts(settings=[]), "damaged"),
        (facts(settings={"deep": {"er": 1}}), "damaged"),
        (facts(epsilon_measured_255=float("inf")), "damaged"),
        (facts(epsilon_measured_255=256), "damaged"),
        (facts(shape=[3, 10**9, 10**9]), "damaged"),
        (facts(shape=[3, 12]), "damaged"),
        (facts(class_names=["x" * 10**6]), "damaged"),
        (facts(card_sha256="none"), "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_read_or_makes_no_sense(folder, change, words):
    change(folder)
    for read in (verify, read_manifest):
        with refused(PublishError, words):
            read(folder)


# -- many files, signatures, letters ---------------------------------------------------------------------------------


def test_every_letter_opens_and_every_view_is_that_of_the_original(copy, key):
    result = verify(copy, clean=make_set(), key=key)
    assert result.ok and (result.signature, result.letters, result.views) == ("valid", 12, 12)
    assert 0 < result.epsilon_255 <= EPSILON
    result = verify(copy, key=key)
    assert result.ok and (result.signature, result.letters, result.views) == ("valid", 12, None)
    result = verify(copy, clean=make_set())
    assert result.ok and (result.signature, result.letters, result.views) == ("not checked", None, None)


def problem_with(copy: Path, key: Key, clean: ImageSet | None = None) -> str:
    (problem,) = verify(copy, clean=clean, key=key).problems
    assert "\n" not in problem
    return problem


def test_a_wrong_key_is_one_line(copy):
    problem = problem_with(copy, SealedKey.draw(), make_set())
    assert problem.startswith("signature: ") and "use the key of this release" in problem
    result = verify(copy, key=SealedKey.draw())
    assert (result.signature, result.letters, result.views) == ("wrong", None, None)


def test_a_changed_pixel_is_one_line(copy, key):
    edit(copy / CAT, with_a_pixel_changed)
    assert problem_with(copy, key, make_set()) == f"{CAT}: pixels changed"
    result = verify(copy, clean=make_set(), key=key)
    assert (result.letters, result.views) == (11, 11)


def test_letters_that_the_protector_spoilt_are_told(key, tmp_path):
    """Signed all the same: one letter that does not open, then one image published under another's name."""
    clean = make_set()
    options = {"method": "sealed", "settings": {}, "epsilon_255": EPSILON, "signers": [key]}
    copies = sealed_by(key, clean.images)
    spoilt = copies.clone()
    spoilt[3, 0, 0, 0] ^= 1
    publish(clean, spoilt, tmp_path / "spoilt", **options)
    assert problem_with(tmp_path / "spoilt", key) == "letters: 11 of 12 open with this key"
    other = clean.with_images(clean.images.clone())
    other.images[4, 0, 5, 5] ^= 4
    publish(other, sealed_by(key, other.images), tmp_path / "other", **(options | {"epsilon_255": None}))
    assert problem_with(tmp_path / "other", key, clean).startswith("views: 11 of 12 are identical")


def test_every_key_of_initial_weights_finds_its_signature_and_checks_nothing_else(tmp_path):
    clean = make_set()
    keys = [weights_key(clean) for _ in range(2)]
    published(tmp_path / "out", clean, signers=keys)
    for key in keys:
        result = verify(tmp_path / "out", clean=clean, key=key)
        assert result.ok and (result.signature, result.letters, result.views) == ("valid", None, None)


def test_whatever_is_not_signed_by_the_key_is_refused(copy, key):
    """Labels exchanged in the manifest, sums made to agree; the signature taken away; the manifest, too."""

    def exchange(data):
        for at, label, file in ((0, 1, CAT), (1, 0, ZEBRA)):
            data["images"][at] |= {"label": label, "file": file}

    (copy / CAT).rename(copy / "x")
    (copy / ZEBRA).rename(copy / CAT)
    (copy / "x").rename(copy / ZEBRA)
    change_manifest(copy, exchange, sums=True)
    assert verify(copy).ok, "without a key nobody can tell"
    assert "edited after it was signed" in problem_with(copy, key)
    (copy / "manifest.sig").unlink()
    rewrite_sums(copy)
    assert verify(copy).ok
    assert "has no manifest.sig" in problem_with(copy, key)
    assert verify(copy, key=key).signature == "none"
    (copy / "manifest.json").unlink()
    with pytest.raises(PublishError, match="is no published folder"):
        verify(copy, key=key)


@pytest.mark.parametrize("text", ["", "[]", '{"algorithm": "rsa", "signatures": []}', '{"algorithm": "ed25519"}'])
def test_a_signature_that_is_none(copy, key, text):
    (copy / "manifest.sig").write_text(text)
    rewrite_sums(copy)
    assert "is no signature, or damaged" in problem_with(copy, key)


def test_a_recipient_cannot_publish(key, tmp_path):
    with pytest.raises(KeyFileError, match="cannot sign"):
        published(tmp_path / "out", signers=[replace(key, signing_key=None)])
    assert not list(tmp_path.iterdir())
