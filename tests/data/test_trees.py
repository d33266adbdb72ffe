"""Trees of any shape: each file is an image of a split, counted in one note, or the whole is refused in one line."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from uge.data import load
from uge.data.layout import SUFFIXES
from uge.errors import DataError

KINDS = {".png": "PNG", ".JPG": "JPEG", ".jfif": "JPEG", ".bmp": "BMP", ".Webp": "WEBP", ".tiff": "TIFF", ".gif": "GIF"}
JUNK = [
    ".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "notes.txt", "README", "labels.csv", "scan.HEIC", "raw.CR2",
    "figure.svg", "set.mat", "index.html", "0.png.part", "metadata.jsonl", "a.parquet",
]  # fmt: skip
WORDS = [
    "train", "val", "validation", "test", "Test_Set", "images", "JPEGImages", "annotations", "reports", "assets", "cat",
    "Cat", "dog", "caf\u00e9", "cafe\u0301", "3", "03", ".ipynb_checkpoints", "__MACOSX", "thumbnails",
]  # fmt: skip
NAMES = st.sampled_from(WORDS) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 100)
FOLDERS = st.lists(NAMES, max_size=3).map("/".join)
FILES = st.tuples(NAMES, st.sampled_from(sorted(KINDS))).map("".join) | st.sampled_from(JUNK)
STRAY = st.dictionaries(st.tuples(FOLDERS, FILES), st.integers(0, 3), max_size=6)


@st.composite
def trees(draw: st.DrawFn) -> dict[tuple[str, str], int]:
    """(folder, file) -> colour: class folders, with or without splits, and whatever else lies about."""
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    splits = draw(st.sampled_from([("",), ("train/",), ("train/", "test/"), ("Training/", "valid/", "test1/")]))
    above = draw(st.sampled_from(["", "pets/", "data/pets/", "images/"]))
    folders = [f"{above}{split}{name}" for split in splits for name in classes]
    tree = {(folder, f"{number}.png"): number % 4 for number, folder in enumerate(folders)}
    near = st.dictionaries(st.tuples(st.sampled_from([*folders, above.rstrip("/")]), FILES), st.just(0), max_size=4)
    return tree | draw(near) | draw(st.just({}) | STRAY)


COUNTED = re.compile(r": ([\d,]+) (?:images?|pictures?|other files?|hidden) ")


def content_of(name: str, colour: int) -> bytes:
    kind = next((KINDS[suffix] for suffix in KINDS if name.endswith(suffix)), None)
    if kind is None or name.startswith("._"):
        return b"no image"
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 60 * colour, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def written(root: Path, tree: dict[tuple[str, str], int]) -> int:
    """Write a tree; how many files or folders of the system it holds, each counted once, and all other files."""
    for (folder, name), colour in tree.items():
        place = root / folder
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content_of(name, colour))
        except OSError:  # a file of that name is there already
            continue
    found = 0
    for _, folders, files in os.walk(root):
        system = [name for name in folders + files if name.startswith(".") or name in SYSTEM]
        found += len(system) + len(set(files) - set(system))
        folders[:] = [name for name in folders if name not in system]
    return found


SYSTEM = {"Thumbs.db", "desktop.ini", "__MACOSX", "thumbnails"}


def accounted_for(source: Path) -> int | None:
    """How many images all splits give and the notes count together; None where the source is refused."""
    stated: dict[str, None] = {}
    images = 0
    for split in ("train", "test", "val"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = load(source, split, convert=True, image_size=(4, 4), skip_bad=True)
            except DataError as error:
                message = str(error).replace(str(source), "d")
                assert len(message) <= 300
                if not re.search(r"has no split|are hidden", message):
                    return None
            else:
                images += len(found)
                assert len(set(found.names)) == len(found)
                assert all(unicodedata.is_normalized("NFC", name) for name in found.class_names)
        stated |= dict.fromkeys(str(warning.message).replace(str(source), "d") for warning in caught)
    kinds = [re.sub(r"[\d,]+", "#", note)[:40] for note in stated]
    assert len(set(kinds)) == len(kinds), "one note a kind"
    return images + sum(int(number[1].replace(",", "")) for note in stated if (number := COUNTED.search(note)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees())
def test_every_file_is_an_image_a_note_or_a_reason_to_refuse(tree: dict[tuple[str, str], int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "d"
        root.mkdir()
        files = written(root, tree)
        before = {path: hashlib.sha256(path.read_bytes()).digest() for path in root.rglob("*") if path.is_file()}
        found = accounted_for(root)
        event("refused" if found is None else "read")
        assert found in (None, files)
        after = {path: hashlib.sha256(path.read_bytes()).digest() for path in root.rglob("*") if path.is_file()}
        assert after == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    classes=st.lists(NAMES, min_size=2, max_size=4),
    splits=st.sampled_from([("",), ("train",), ("train", "test"), ("Training", "valid", "test1")]),
    above=st.sampled_from(["", "pets/", "data/pets/"]),
    junk=st.lists(st.tuples(st.sampled_from(["", "CLASS/"]), st.sampled_from(JUNK)), max_size=4),
)
def test_a_zip_of_a_folder_is_read_as_the_folder_is(
    classes: list[str], splits: tuple[str, ...], above: str, junk: list[tuple[str, str]]
) -> None:
    tree = {(f"{above}{split}/{name}", "0.png"): at for split in splits for at, name in enumerate(classes)}
    tree |= {(f"{above}{splits[0]}/{where.replace('CLASS', classes[0])}", name): 0 for where, name in junk}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "d"
        root.mkdir()
        written(root, tree)
        with zipfile.ZipFile(Path(place) / "d.zip", "w") as archive:
            for path in sorted(root.rglob("*"), reverse=True):
                archive.write(path, path.relative_to(root))
        results = []
        for source in (root, Path(place) / "d.zip"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = load(source)
                results.append((found.class_names, found.names, found.digest()))
            except DataError as error:
                results.append(str(error).replace(str(source), "d"))
        if not any("\\" in name for name in classes):  # zips have no folder of that name
            assert results[0] == results[1]


def test_the_suffixes_that_are_tried_here_are_read() -> None:
    assert {suffix.lower() for suffix in KINDS} < SUFFIXES


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on this system alone")
def test_a_name_that_is_no_text_is_refused_at_the_start(tmp_path: Path) -> None:
    written(tmp_path, {("tea", "0.png"): 0, ("cat", "0.png"): 1})
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(tmp_path / "cat" / "0.png", os.fsencode(tmp_path) + b"/caf\xe9/0.png")
    with pytest.raises(DataError, match="which is not UTF-8; rename it"):
        load(tmp_path)
