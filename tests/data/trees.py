"""Trees of files as people have them: class folders, with or without splits, and whatever else lies about."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from .conftest import saved

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


SYSTEM = {"Thumbs.db", "desktop.ini", "__MACOSX", "thumbnails"}


def content_of(name: str, colour: int) -> bytes:
    kind = next((KINDS[suffix] for suffix in KINDS if name.endswith(suffix)), None)
    if kind is None or name.startswith("._"):
        return b"no image"
    return saved(Image.new("RGB", (4, 4), (60 * colour,) * 3), kind)


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
