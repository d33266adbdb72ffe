"""What git, hubs, archives, file managers and careless hands do to a copy on its way, and what is said of it."""

import os
import shutil
import subprocess
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from uge.copy import Copy, check_outside, open_copy, publish, verify
from uge.copy.files import files_of, png_bytes, safe_name
from uge.data import DataWarning, load
from uge.data.images import ImageSet, identity
from uge.errors import DataError, PublishError, UgeError
from uge.keys import SealedKey

from ..data.trees import trees, written
from .copies import content, make_set, perturbed, published
from .test_verification import rewrite_sums

CAT = "train/cat/00001.png"


def as_good_as_new(copy: Path, key: SealedKey, *notes: str) -> None:
    """Everybody reads it, the recipient opens it, and `verify` says in notes alone what was done to it."""
    found = verify(copy, key=key, clean=make_set())
    assert found.ok and found.views == 12, found
    assert len(found.notes) == len(notes) and all(note in told for note, told in zip(notes, found.notes, strict=True))
    assert torch.equal(Copy.read(copy).images.labels, make_set().labels)
    assert torch.equal(Copy.read(copy, key).view(key).images, make_set().images & 0xFE)
    out = copy.parent / "opened"
    assert open_copy(copy, replace(key, signing_key=None), out) == 12
    assert len(content(out)) == 12
    shutil.rmtree(out)


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "train/.DS_Store", "train/cat/._00001.png", "._train", "__MACOSX/train/._cat"),
        *("Thumbs.db", "train/cat/Thumbs.db", "train/cat/desktop.ini", "train/cat/00001.png:Zone.Identifier"),
        *(".git/config", ".gitignore", ".cache/huggingface/download/train/cat/00001.png.metadata"),
        *(".directory", "train/zebra/.nfs0000a1", ".Trash-1000/files/old.png", ".dropbox"),
    ],
)
def test_what_programs_leave_beside_the_files_changes_nothing(copy, key, name):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_bytes(b"\x00\x05\x16\x07 something")
    as_good_as_new(copy, key, "left by git, a hub's client, a file manager or a cloud drive")


def test_what_a_reader_of_folders_would_take_for_images_is_never_passed_over(copy):
    for name in ("train/cat/.cache/00001.png", "train/@eaDir/00001.jpg"):
        (copy / name).parent.mkdir()
        shutil.copy(copy / CAT, copy / name)
        assert any(name in problem and "extra" in problem for problem in verify(copy).problems)
        with_it = [problem for problem in verify(copy).problems if f"{Path(name).parent.as_posix()}/:" in problem]
        assert with_it, "the folder would be a class"
        shutil.rmtree((copy / name).parent)
    assert verify(copy).ok


def test_the_attributes_of_a_hub_in_place_of_ours(copy, key):
    assert (copy / ".gitattributes").read_bytes() == b"* -text\n"
    (copy / ".gitattributes").write_text("*.parquet filter=lfs diff=lfs merge=lfs -text\n")
    as_good_as_new(copy, key)
    (copy / ".gitattributes").unlink()
    as_good_as_new(copy, key)


def test_line_endings_of_windows_in_all_text_files(copy, key):
    names = ("manifest.json", "manifest.sig", "README.md", "SHA256SUMS")
    for name in names:
        (copy / name).write_bytes((copy / name).read_bytes().replace(b"\n", b"\r\n"))
    as_good_as_new(copy, key, "and 3 more: line endings were changed (git, an editor), nothing else")
    (copy / "README.md").write_bytes((copy / "README.md").read_bytes() + b"Free.\r\n")
    assert verify(copy).problems == ("README.md: edited, it differs from what manifest.json says",)


def test_a_hubs_cache_of_links_is_read(copy, key, tmp_path):
    (tmp_path / "blobs").mkdir()
    for number, file in enumerate(path for path in sorted(copy.rglob("*")) if path.is_file()):
        file.rename(tmp_path / "blobs" / str(number))
        file.symlink_to(os.path.relpath(tmp_path / "blobs" / str(number), file.parent))
    as_good_as_new(copy, key)


def test_links_and_pipes_lead_nowhere(copy, key, tmp_path):
    (tmp_path / "private.png").write_bytes(png_bytes(make_set(seed=5).images[0]))
    (copy / CAT).unlink()
    (copy / CAT).symlink_to(tmp_path / "private.png")
    assert verify(copy, key=key).problems == (f"{CAT}: pixels changed",)
    (copy / CAT).unlink()
    os.mkfifo(copy / CAT)
    assert "is a pipe" in verify(copy).problems[0]
    with pytest.raises(PublishError, match="is a pipe"):
        Copy.read(copy)
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").symlink_to("/dev/zero")
    with pytest.raises(PublishError, match="is a device"):
        verify(copy)


# -- what is changed in the files ------------------------------------------------------------------------------------


def as_jpeg(path: Path) -> None:
    with Image.open(path) as picture:
        picture.save(path, "JPEG")


def as_jpeg_beside(path: Path) -> None:
    with Image.open(path) as picture:
        picture.save(path.with_suffix(".jpg"))
    path.unlink()


def smaller(path: Path) -> None:
    with Image.open(path) as picture:
        picture.resize((6, 6)).save(path, "PNG")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (as_jpeg, "re-encoded as JPEG, which changes pixels"),
        (as_jpeg_beside, "re-encoded as JPEG, which changes pixels"),
        (smaller, "resized or changed in its colours"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"\r\n", b"\n")), "line endings were changed in it"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"\n", b"\r\n")), "line endings were changed in it"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "'git lfs pull'"),
        (lambda p: p.write_text("<!DOCTYPE html><title>Sign in</title>"), "a web page in place of the file"),
        (lambda p: p.write_bytes(b""), "unreadable (empty)"),
        (lambda p: p.rename(p.with_name("renamed.png")), "renamed to train/cat/renamed.png"),
    ],
)
def test_what_was_done_to_an_image_is_told_for_what_it_is(copy, change, told):
    change(copy / CAT)
    assert told in next(problem for problem in verify(copy).problems if problem.startswith(CAT))
    with pytest.raises(PublishError, match="run 'uge verify"):
        Copy.read(copy)


def test_a_folder_under_another_name_is_one_line(copy, key):
    (copy / "train" / "cat").rename(copy / "train" / "cÃ©t")
    told = verify(copy, key=key).problems
    assert told[0].startswith(f"{CAT}: moved to the folder train/cÃ©t") and not any("swapped" in line for line in told)
    assert torch.equal(Copy.read(copy, key).images.labels, make_set().labels), "the signed manifest has the labels"


def test_what_a_reader_goes_by_is_signed_or_found(copy, key):
    """The card says what `load_dataset` reads; a turned picture has the same pixels in its file."""
    card = copy / "README.md"
    text = card.read_text()
    card.write_text(text.replace("train/**/*.png", "https://evil.example/*.parquet"))
    rewrite_sums(copy)
    for with_key in (key, None):
        assert verify(copy, key=with_key).problems == ("README.md: edited, it differs from what manifest.json says",)
    card.write_text(text)
    with Image.open(copy / CAT) as picture:
        exif = picture.getexif()
        exif[0x0112] = 3
        notes = PngImagePlugin.PngInfo()
        notes.add_text("label", "dog")
        picture.load()
        picture.save(copy / CAT, exif=exif, pnginfo=notes)
    rewrite_sums(copy)
    assert verify(copy, key=key).problems == (f"{CAT}: file rewritten, pixels unchanged",)


# -- any names, any way ----------------------------------------------------------------------------------------------

NAME = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


def zipped(folder: Path, to: Path) -> None:
    with zipfile.ZipFile(shutil.make_archive(str(to), "zip", folder)) as archive:
        archive.extractall(to)


def tarred(folder: Path, to: Path) -> None:
    shutil.unpack_archive(shutil.make_archive(str(to), "tar", folder), to, filter="data")


def cloned(folder: Path, to: Path) -> None:
    """As git for Windows does it, without the copy's own attributes."""
    shutil.copytree(folder, to)
    (to / ".gitattributes").unlink()
    (to / ".gitattributes").write_text("*.png binary\n")
    git = ("git", "-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(to))
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "copy")):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    for path in (path for path in to.iterdir() if path.name != ".git"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    subprocess.run([*git, "checkout", "-q", "."], check=True)
    assert b"\r\n" in (to / "manifest.json").read_bytes()


def decomposed(folder: Path, to: Path) -> None:
    """As a file system of a Mac names files."""
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        place = to / unicodedata.normalize("NFD", path.relative_to(folder).as_posix())
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


TRAVELS = st.sampled_from([zipped, tarred, cloned, decomposed])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NAME, min_size=2, max_size=4), st.lists(NAME, min_size=4, max_size=8), st.data())
@pytest.mark.filterwarnings("ignore::uge.data.DataWarning")
def test_a_copy_of_any_names_arrives_by_zip_tar_git_and_other_file_systems(tmp_path_factory, classes, names, data):
    tmp = tmp_path_factory.mktemp("way")
    assume(len({identity(name) for name in classes}) == len(classes) <= len(names))
    count = len(names)
    labels = torch.arange(count) % len(classes)
    clean = ImageSet(make_set(count, size=(4, 4)).images, labels, tuple(classes), tuple(map(str, names)))
    try:
        files = files_of(clean)
    except PublishError as error:
        assert "would share the folder" in str(error) or "too long" in str(error)
        return
    assert len({unicodedata.normalize("NFC", file).casefold() for file in files}) == count
    assert all(part == part.strip(" .") and not set(part) & set('<>:"\\|?*') for f in files for part in f.split("/"))
    arrives(clean, tmp, data.draw(TRAVELS))
    shutil.rmtree(tmp)


def arrives(clean: ImageSet, tmp: Path, travel: Callable[[Path, Path], None]) -> None:
    """A copy of these images is whole where it arrives, with their classes, in their order, and their labels."""
    publish(clean, perturbed(clean.images), tmp / "copy", method="noise", settings={}, epsilon_255=None)
    travel(tmp / "copy", tmp / "arrived")
    found = verify(tmp / "arrived", clean=clean)
    assert found.ok, (travel, found)
    images = Copy.read(tmp / "arrived").images
    assert images.class_names == clean.class_names and torch.equal(images.labels, clean.labels)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees(), travel=TRAVELS)
@pytest.mark.filterwarnings("ignore::uge.data.DataWarning")
def test_a_copy_of_any_tree_has_its_classes_and_arrives(tmp_path_factory, tree, travel):
    tmp = tmp_path_factory.mktemp("tree")
    written(tmp / "data", tree)
    try:
        clean = load(tmp / "data", convert=True, image_size=(4, 4), skip_bad=True)
        files_of(clean)
    except (DataError, PublishError) as error:
        event(f"refused: {type(error).__name__}")
    else:
        event("published")
        arrives(clean, tmp, travel)
    shutil.rmtree(tmp)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        *(("हिन्दी", "हिन्दी"), ("cafe\u0301", "caf\u00e9"), ("😀", "😀"), ("CON", "CON-"), ("aux.1", "aux-.1")),
        *(("falcon", "falcon"), ("a\u202eb", "a-b"), ("a\u00a0b", "a-b"), ("C:\\Users\\me", "C--Users-me")),
        *(("..", "-"), ("__pycache__", "pycache"), ("[dog]", "-dog-"), ("x. ", "x")),
    ],
)
def test_a_name_becomes_one_that_every_file_system_takes(name, safe):
    assert safe_name(name) == safe


def test_images_that_other_file_systems_would_take_for_one_get_a_number():
    images = make_set(4)
    names = ("zebra/A", "zebra/a", "zebra/A-2", "zebra/a:")
    found = files_of(ImageSet(images.images, torch.tensor([0, 0, 0, 1]), ("zebra", "cat"), names))
    assert found == ("train/zebra/A.png", "train/zebra/a-2.png", "train/zebra/A-2-2.png", "train/cat/zebra-a-.png")


def test_classes_that_readers_number_otherwise_are_told(tmp_path):
    with pytest.warns(DataWarning, match=r"number 2 of 3 classes otherwise than the data: 0 is 'T-shirt-top' there"):
        published(tmp_path / "out")


def test_a_target_inside_of_what_is_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for out in ("data/copy", tmp_path / "data" / "a" / "b", "link/copy", "data"):
        with pytest.raises(UgeError, match="lies inside data, and would become a part of it"):
            check_outside(out, None, "data", "hub:someone/toy")
    _ = [Path("data", name).touch() for name in ("manifest.json", "SHA256SUMS")]
    with pytest.raises(UgeError, match=r"lies inside .*data, and would become a part of it"):
        check_outside("data/opened", "data/train/cat/1.png")
    check_outside("copy", "data", "eurosat", None)
    check_outside("data-copy", "data")
