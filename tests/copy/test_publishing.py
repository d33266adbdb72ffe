import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uge.copy import Copy, publish, read_manifest
from uge.copy.files import chunks_of, png_bytes, read_png
from uge.data.images import ImageSet, batch_of, pixel_sha256
from uge.durable import check_target
from uge.errors import PublishError
from uge.keys import SealedKey
from uge.keys.letter import derive

from ..images import noise
from .copies import EPSILON, content, make_set, perturbed, published, published_sealed, weights_key

ROOT = Path(__file__).parents[2]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_png_is_lossless(channels, height, width, seed):
    image = noise(channels, height, width, seed=seed)
    assert torch.equal(read_png(png_bytes(image)), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_published_is_read_back(channels, tmp_path):
    clean = make_set(channels=channels, size=(5, 9))
    manifest = published(tmp_path / "out", clean)
    loaded = Copy.read(tmp_path / "out").images
    assert torch.equal(loaded.images, perturbed(clean.images))
    assert torch.equal(loaded.labels, clean.labels)
    assert loaded.class_names == clean.class_names == manifest.class_names
    assert loaded.names[:3] == ("zebra/00000", "cat/00001", "T-shirt-top/00002")
    assert read_manifest(tmp_path / "out") == manifest
    assert (manifest.epsilon_255, manifest.epsilon_measured_255) == (EPSILON, EPSILON)
    assert manifest.settings == {"strength": "much"}
    publish(loaded, loaded.images, tmp_path / "again", method="none", settings={}, epsilon_255=0)
    assert Copy.read(tmp_path / "again").images.names == loaded.names


def test_checksums_are_those_of_sha256sum(tmp_path):
    published(tmp_path / "out")
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out", check=True)
    listed = {line[66:] for line in (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()}
    assert listed == set(content(tmp_path / "out")) - {"SHA256SUMS", ".gitattributes"}


def test_a_single_pixel_past_the_bound_is_found_and_nothing_is_left(tmp_path):
    clean = make_set(2500, size=(2, 2))
    clean.images.fill_(100)
    copy = clean.images.clone()
    copy[2400, 1, 1, 0] = 109
    with pytest.raises(PublishError, match="reaches 9/255, the bound is 8/255"):
        publish(clean, copy, tmp_path / "out", method="noise", settings={}, epsilon_255=8)
    assert os.listdir(tmp_path) == []


def test_a_target_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("the only copy")
    for call in (check_target, published):
        with pytest.raises(PublishError, match="not empty"):
            call(tmp_path / "out")
        with pytest.raises(PublishError, match="is a file"):
            call(tmp_path / "out" / "thesis.txt")
    assert content(tmp_path) == {"out/thesis.txt": b"the only copy"}


def test_large_images_are_worked_on_in_smaller_batches():
    assert batch_of((3, 32, 32)) == 250 and batch_of((1, 64, 64)) == 250
    assert batch_of((3, 512, 512)) == 3 and batch_of((3, 4000, 4000)) == 1


def test_the_folder_has_the_permissions_that_the_user_asks_for(tmp_path):
    old = os.umask(0o027)
    try:
        published(tmp_path / "out")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out" / "manifest.json").stat().st_mode & 0o777 == 0o640


FAILS = """
import os, resource, sys
from pathlib import Path
from tests.copy.copies import make_set, published
from uge.errors import PublishError
clean, (limited, closed) = make_set(60), map(Path, sys.argv[1:])
def fail(out):
    try:
        published(out, clean)
    except PublishError as error:
        print(error)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
fail(limited)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
os.geteuid() or os.seteuid(65534)  # permissions do not stop the administrator: become nobody, who may not even look
fail(closed)
"""


def test_a_file_past_the_limit_or_a_read_only_target_leaves_nothing(tmp_path):
    """The images fit below the limit, the manifest does not: the failure comes when most is written."""
    places = [tmp_path / name for name in ("limited", "closed")]
    for place in places:
        place.mkdir()
    places[1].chmod(0o555)
    command = [sys.executable, "-c", FAILS, *(str(place / "out") for place in places)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()
    assert len(told) == 2 and all("cannot write" in line for line in told), done
    assert "File too large" in told[0] and "Permission denied" in told[1]
    assert [os.listdir(place) for place in places] == [[], []]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", ["imagefolder", "folder"])
def test_read_by_hugging_face(how, channels, tmp_path):
    datasets = pytest.importorskip("datasets")
    clean = make_set(channels=channels)
    published(tmp_path / "out", clean)
    source = ("imagefolder",) if how == "imagefolder" else (str(tmp_path / "out"),)
    options = {"data_dir": str(tmp_path / "out")} if how == "imagefolder" else {}
    data = datasets.load_dataset(*source, **options, cache_dir=str(tmp_path / "cache"))
    assert list(data) == ["train"] and len(data["train"]) == len(clean)
    names = data["train"].features["label"].names
    assert names == ["T-shirt-top", "cat", "zebra"]
    expected = sorted(
        (clean.class_names[label].replace("/", "-"), pixel_sha256(image))
        for image, label in zip(perturbed(clean.images), clean.labels, strict=True)
    )
    got = []
    for row in data["train"]:
        array = np.array(row["image"]).reshape(12, 12, channels)
        got.append((names[row["label"]], pixel_sha256(torch.from_numpy(array).permute(2, 0, 1))))
    assert sorted(got) == expected


def traces(image: torch.Tensor) -> list[bytes]:
    """What would give an image away: its pixels in either order, and the hashes people would make of them."""
    planes = image.contiguous().numpy().tobytes()
    interleaved = image.permute(1, 2, 0).contiguous().numpy().tobytes()
    found = [planes, interleaved, pixel_sha256(image).encode(), bytes.fromhex(pixel_sha256(image))]
    for data in (planes, interleaved, png_bytes(image)):
        for name in ("md5", "sha1", "sha256", "sha512"):
            digest = hashlib.new(name, data)
            found += [digest.digest(), digest.hexdigest().encode()]
    return found


def test_nothing_of_originals_or_key_is_published(tmp_path):
    """Neither secrets nor what only they give, in any encoding, in any byte, file name, PNG chunk or pixel."""
    clean, key = make_set(30), SealedKey.draw()
    published_sealed(tmp_path / "out", clean, key)
    haystack = b"".join(name.encode() + data for name, data in content(tmp_path / "out").items())
    copies = []
    for path in sorted((tmp_path / "out").rglob("*.png")):
        data = path.read_bytes()
        assert chunks_of(data) == {b"IHDR", b"IDAT", b"IEND"}  # no text, no time, no profile
        copies.append(read_png(data))
        haystack += copies[-1].numpy().tobytes() + copies[-1].permute(1, 2, 0).contiguous().numpy().tobytes()

    assert all(traces(copy)[i] in haystack for copy in copies for i in (0, 1, 2))  # the search finds what is there
    for image in (*clean.images, *key.seen(clean.images)):
        for trace in traces(image):
            assert trace not in haystack
    secrets = [key.secret, key.signing_key, bytes.fromhex(key.digest()), derive(key.secret, "uge/letter/1")]
    secrets += [hashlib.sha256(secret).digest() for secret in secrets]
    for secret in secrets:
        for part in (secret[:12], secret[-12:]):
            assert part not in haystack
            for text in (part.hex(), base64.b64encode(part).decode(), base64.urlsafe_b64encode(part).decode()):
                assert text.encode() not in haystack and text.upper().encode() not in haystack

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest) == {
        "format_version", "uge", "method", "settings", "epsilon_255", "epsilon_measured_255",
        "class_names", "shape", "images", "card_sha256",
    }  # fmt: skip
    assert manifest["format_version"] == 3
    assert all(set(entry) == {"file", "label", "sha256"} for entry in manifest["images"])
    signature = json.loads((tmp_path / "out" / "manifest.sig").read_text())
    assert set(signature) == {"algorithm", "signatures"}
    assert all(set(entry) == {"public_key", "signature"} for entry in signature["signatures"])


def test_the_card_says_what_it_is_in_short_sentences(tmp_path):
    clean = make_set()
    published_sealed(tmp_path / "sealed", clean, SealedKey.draw())
    published(tmp_path / "weights", clean, signers=[weights_key(clean)])
    published(tmp_path / "lock", clean, settings={"lock": "00"})
    published(tmp_path / "none", clean)
    cards = {name: (tmp_path / name / "README.md").read_text() for name in ("sealed", "weights", "lock", "none")}
    assert "has the originals back, exact but for the lowest bit" in cards["sealed"]
    assert "`uge open`" in cards["sealed"] and "by more than 7 of 255; 8 was allowed" in cards["sealed"]
    assert "learnt by one network, which a key defines" in cards["weights"]
    assert "A secret lock undoes it" in cards["lock"]
    assert "there is no key" in cards["none"]
    for card in cards.values():
        text = card.split("---\n")[2]
        for sentence in re.split(r"[.:;]\s|\n\n|\n- ", text):
            assert len(sentence.split()) <= 20, sentence


def test_names_are_made_safe(tmp_path):
    clean = make_set(3)
    names = ("../../etc/passwd", "cat/holiday photo.é 1", "\n\x00hidden")
    published(tmp_path / "out", ImageSet(clean.images, clean.labels, ("..", "cat", "__a\\b"), names))
    files = [entry.file for entry in read_manifest(tmp_path / "out").images]
    assert files == ["train/-/-etc-passwd.png", "train/cat/holiday photo.é 1.png", "train/a-b/--hidden.png"]
    assert os.listdir(tmp_path) == ["out"]
    assert Copy.read(tmp_path / "out").images.class_names == ("..", "cat", "__a\\b")


@pytest.mark.parametrize(
    ("classes", "names", "words"),
    [
        (("a/b", "a-b", "c"), ("1", "2", "3"), "share the folder 'a-b'"),
        (("a", "b", "c", "d"), ("1", "2", "3"), "class 'd' has no image"),
    ],
    ids=["classes", "empty class"],
)
def test_names_that_cannot_be_published(classes, names, words, tmp_path):
    with pytest.raises(PublishError, match=words):
        published(tmp_path / "out", ImageSet(make_set(3).images, torch.arange(3), classes, names))
    assert os.listdir(tmp_path) == []


def test_memory_does_not_grow_by_more_than_what_is_published(tmp_path):
    clean = make_set(3000, size=(32, 32))
    copy = perturbed(clean.images)
    published(tmp_path / "warm")  # modules that are loaded once
    peaks = []
    for name in ("out", "again"):  # Python's table of interned strings, counted too, may double during one of the two
        tracemalloc.start()
        publish(clean, copy, tmp_path / name, method="noise", settings={}, epsilon_255=EPSILON)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks) < sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.png")) / 2


def test_a_target_that_no_folder_can_replace_is_refused_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(PublishError, match="is a link or a mount point"):
        check_target(tmp_path / "link")
    with pytest.raises(PublishError, match="is a link or a mount point"):
        check_target("/proc")
