"""Which files of a folder or zip are images of which class and split, judged by their paths alone.

A class is a folder; images deeper inside belong to it. Splits are folders with the name of one, beside each other, that
hold class folders. Whatever is no image of a class is named in a note with its count, or refused: a folder called
images, val or reports is no class, and nothing is published because it lay near.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from uge.data.decoding import SUFFIXES
from uge.data.entries import SPLIT_WORDS, Entry, Source, kinds_of, some_names, suffix_of
from uge.data.images import composed
from uge.data.labels import labels_in
from uge.errors import DataError

EXPECTED = "expected CLASS/*.png, or train/CLASS/*.png beside test/"
PICTURE = "picture"  # the class of images that have none
PICTURES = {
    ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".psd", ".xcf", ".ico", ".tga", ".eps", ".pcx",
    ".exr", ".hdr", ".dds", ".qoi", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm",
}  # fmt: skip
"""Suffixes of pictures that are not read: they are named, and a class of nothing else is refused."""

_SPLIT = re.compile(rf"({'|'.join(sorted(SPLIT_WORDS, reverse=True))})(set|data|split|images|imgs)?(19|20)?\d{{0,2}}")
_SYSTEM = {
    "__macosx", "@eadir", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "lost+found",
    "system volume information", "icon\r", "thumbnail", "thumbnails", "thumbs", "_thumbs", "previews",
}  # fmt: skip
_NO_CLASS = {
    "image", "images", "img", "imgs", "jpegimages", "jpg", "jpeg", "png", "annotation", "annotations", "imagesets",
    "segmentationclass", "segmentationobject", "assets", "docs", "figures", "figs", "plots", "report", "reports",
    "results", "outputs", "runs", "screenshots",
}  # fmt: skip
_READ = "a table of labels is metadata.csv beside the images, columns file_name and label"
_TABLES = ("metadata.csv", "metadata.jsonl", "val_annotations.txt")

Parts = tuple[str, ...]
_Labelled = tuple[str, Parts, str]  # the folder of a class, the path below it, the whole path


@dataclass(frozen=True)
class _Frame:
    """The folders above the classes.

    Attributes:
        top: the folder that holds the splits, or the classes where there are no splits.
        bottoms: split -> the folder that holds its classes.
        named: whether the splits are folders; without, all is "train".
    """

    top: Parts
    bottoms: dict[str, Parts]
    named: bool

    def place(self, parts: Parts) -> tuple[str, Parts]:
        """The split of a path, and the rest of it below the folder of its classes; empty for one of no split."""
        for split, bottom in self.bottoms.items():
            if parts[: len(bottom)] == bottom:
                return split, parts[len(bottom) :]
        return "", ()


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a file manager or an editor: never an image of a set."""
    return name.startswith(".") or name.lower() in _SYSTEM


def split_of(folder: str) -> str | None:
    """The split that a folder's name says: "train" of "training_set" or "Train2017"; None where it says none."""
    found = _SPLIT.fullmatch(_letters(folder))
    return SPLIT_WORDS[found[1]] if found else None


def class_layout(
    source: str,
    files: Mapping[str, Callable[[], bytes]],
    *,
    where: str = "",
    empty: Iterable[str] = (),
    without: bool = False,
    pictures: bool = False,
) -> Source:
    """Find classes and splits.

    Args:
        source: names the tree in errors.
        files: path ("a/b.png") -> what gives its content; without those of the system.
        where: what stands before a file's path in errors.
        empty: folders that hold no file.
        without: go on without classes of which no file can be read.
        pictures: where no image lies in a class folder, take those beside each other as of the class `PICTURE`.

    Returns:
        The classes, sorted, and the images of every split, sorted by path.

    Raises:
        DataError: it cannot be said which folders are classes, or a class would be lost.
    """
    images = sorted(tuple(path.split("/")) for path in files if suffix_of(path) in SUFFIXES)
    not_read = sorted(path for path in files if suffix_of(path) in PICTURES)
    others = {path for path in files if suffix_of(path) not in SUFFIXES | PICTURES}
    frame = _frame(source, images)
    if not frame.named and _table_of(frame, "train", others):  # its images may lie in a folder called images
        frame = replace(frame, bottoms={"train": _looked_through(images, frame.top, 1, _is_no_class)})
    labelled, loose, beside = _sorted_out(frame, images)
    notes = _label_by_tables(source, frame, labelled, loose, others, files)
    if pictures and not labelled and not frame.named:
        labelled = {split: [(PICTURE, (path,), path) for path in members] for split, members in loose.items()}
        loose = {}
        notes += [f"{source}: no labels are known; {_READ}"] if any(path.endswith(".csv") for path in others) else []
    classes = {folder for members in labelled.values() for folder, _, _ in members}
    _check_classes(source, classes, frame, labelled, files)
    unread, bare = _lost(classes, frame, [*files, *(f"{folder}/" for folder in empty)])
    notes += _notes_on_classes(source, classes, unread, bare, without=without)
    notes += _notes_on_subfolders(source, labelled)
    astray = sorted(path for members in loose.values() for path in members)
    notes += [
        f"{source}: {_count(found, what)} passed over: {how(found)}{more}"
        for found, what, how, more in (
            (beside, "image# beside the splits", some_names, ""),
            (astray, "image# in no class folder", some_names, ""),
            (not_read, "picture# of a kind that is not read", kinds_of, "; save them as PNG to have them"),
            (sorted(others), "other file#", kinds_of, f", such as {some_names([*sorted(others), ''][:1])}"),
        )
        if found
    ]
    class_names = tuple(sorted({composed(name) for name in classes}))
    label_of = {name: label for label, name in enumerate(class_names)}
    splits = {
        split: [Entry(name, label_of[folder], where + path, files[path]) for folder, name, path in _named(source, its)]
        for split, its in labelled.items()
    }
    unlabelled = {split: len(members) for split, members in loose.items() if split not in labelled}
    return Source(class_names, splits, unlabelled, tuple(notes))


def _sorted_out(
    frame: _Frame, images: Sequence[Parts]
) -> tuple[dict[str, list[_Labelled]], dict[str, list[str]], list[str]]:
    """Images of classes by split, those of splits in no class folder, and those of no split."""
    labelled: dict[str, list[_Labelled]] = {}
    loose: dict[str, list[str]] = {}
    beside: list[str] = []
    for parts in images:
        path, (split, below) = "/".join(parts), frame.place(parts)
        if not split:
            beside.append(path)
        elif len(below) == 1:
            loose.setdefault(split, []).append(path)
        else:
            labelled.setdefault(split, []).append((below[0], below[1:], path))
    return labelled, loose, beside


# --------------------------------------------------------------------------------------- the folders above the classes


def _frame(source: str, images: Sequence[Parts]) -> _Frame:
    """Splits are looked for first: the uppermost folders with the name of one that hold class folders."""
    holding: dict[Parts, set[str]] = {}
    for parts in images:
        depth = next((at for at, name in enumerate(parts[:-2]) if split_of(name)), None)
        if depth is not None:
            holding.setdefault(parts[:depth], set()).add(parts[depth])
    depth = min(map(len, holding), default=0)
    tops = sorted(top for top in holding if len(top) == depth)
    if len(tops) > 1:
        raise DataError(
            f"{source} has splits in several folders: {some_names(['/'.join(top) for top in tops])}; {EXPECTED}:"
            " give one of them, or put the splits above the classes"
        )
    top = tops[0] if tops else _looked_through(images, (), 2, lambda name: not split_of(name))
    beside = sorted({parts[len(top)] for parts in images if parts[: len(top)] == top and len(parts) > len(top) + 1})
    splits = [name for name in beside if split_of(name)]
    if not splits or (not tops and len(splits) < len(beside)):  # a class may be called train
        return _Frame(top, {"train": top}, named=False)
    certain = holding.get(top, set())
    if len(certain) == 1 and (strange := [name for name in beside if not split_of(name)]):
        raise DataError(
            f"{source}: '{min(certain)}' is a split or a class, for beside it lie images in {some_names(strange)};"
            f" {EXPECTED}, and no other images beside them"
        )
    bottoms: dict[str, Parts] = {}
    for name in sorted(splits, key=lambda name: name not in certain):
        split, bottom = str(split_of(name)), (*top, name)
        if split in bottoms:
            if name in certain or not certain:
                raise DataError(
                    f"{source} has two folders for split {split}: '{bottoms[split][len(top)]}' and '{name}'; keep one"
                )
            continue
        members = [parts for parts in images if parts[: len(bottom)] == bottom]
        bottom = _looked_through(members, bottom, 2, lambda name: split_of(name) is not None)
        bottoms[split] = _looked_through(members, bottom, 1, _is_no_class)
    return _Frame(top, bottoms, named=True)


def _looked_through(images: Sequence[Parts], top: Parts, below: int, passes: Callable[[str], bool]) -> Parts:
    """The folder below `top` that all images lie in, as deep as single folders go whose names `passes` lets through.

    So many parts of a path must be left below a folder that is looked through (`below`).
    """
    while images and all(len(parts) > len(top) + below for parts in images):
        names = {parts[len(top)] for parts in images}
        if len(names) > 1 or not passes(next(iter(names))):
            break
        top = (*top, *names)
    return top


def _check_classes(
    source: str, classes: Collection[str], frame: _Frame, labelled: dict[str, list[_Labelled]], files: Collection[str]
) -> None:
    """Refuse what is no class: splits, folders that hold all images, reports; and splits inside of classes."""
    if not classes:
        beside = f" (but {kinds_of(files)})" if files else ""
        splits = f", only without labels in {' and '.join(frame.bottoms)}" if frame.named else ""
        raise DataError(f"{source} holds no image in a class folder{splits}{beside}; {EXPECTED}; {_READ}")
    other_split = {name for name in classes if split_of(name) and name.lower() != "train"}
    if strange := sorted(other_split | {name for name in classes if _is_no_class(name)}):
        raise DataError(
            f"{source} would have the classes {some_names(strange)}, names of splits or of what lies beside classes;"
            f" {EXPECTED}: move or rename them; {_READ}"
        )
    for members in labelled.values():
        for folder, below, _ in members:
            if word := next((name for name in below[:-1] if split_of(name)), None):
                raise DataError(
                    f"{source}: class '{folder}' holds the split '{word}'; {EXPECTED}: put splits above classes"
                )


def _lost(classes: Collection[str], frame: _Frame, paths: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Folders that may be classes, but hold pictures alone that are not read -> these; and such without a picture."""
    unread: dict[str, list[str]] = {}
    without: set[str] = set()
    for path in paths:
        _, below = frame.place(tuple(path.split("/")))
        if len(below) < 2 or below[0] in classes or _is_no_class(below[0]):
            continue
        if suffix_of(path) in PICTURES:
            unread.setdefault(below[0], []).append(path)
        else:
            without.add(below[0])
    return unread, sorted(without - set(unread))


def _notes_on_classes(
    source: str, classes: Collection[str], unread: dict[str, list[str]], bare: list[str], *, without: bool
) -> list[str]:
    """What is said of class names and of folders that become no class.

    Raises:
        DataError: a class would be lost, and not `without`.
    """
    notes = []
    if unread and not without:
        name, files = next(iter(unread.items()))
        raise DataError(
            f"{source}: of class '{name}' nothing can be read: {kinds_of(files)}; save them as PNG,"
            " or --skip-bad to go on without the class"
        )
    if unread:
        notes.append(f"{source}: classes without a file that is read passed over: {some_names(sorted(unread))}")
    if bare:
        notes.append(f"{source}: {_count(bare, 'folder#')} without an image, so no class: {some_names(bare)}")
    names = [composed(name) for name in sorted(classes)]
    if double := [name for name, forms in Counter(names).items() if forms > 1]:
        notes.append(f"{source}: folders in two Unicode forms are taken for one class: {some_names(double)}")
    elif names != sorted(names):
        notes.append(
            f"{source}: classes are in the order of composed letters; loaders that sort decomposed names number them"
            " in another order"
        )
    return notes


def _notes_on_subfolders(source: str, labelled: dict[str, list[_Labelled]]) -> list[str]:
    """Classes that hold several folders may be something else, such as a collection with classes of its own."""
    seen: dict[str, str] = {}
    for members in labelled.values():
        for folder, below, path in members:
            if len(below) > 1 and seen.setdefault(folder, below[0]) != below[0]:
                return [f"{source}: an image's class is its uppermost folder, so {path} is of class '{folder}'"]
    return []


def _named(source: str, members: Sequence[_Labelled]) -> list[tuple[str, str, str]]:
    """(class, "class/file" without suffix, path), each name once."""
    owners: dict[str, str] = {}
    named = []
    for folder, below, path in sorted(members, key=lambda each: tuple(each[2].split("/"))):
        folder = composed(folder)
        name = composed(f"{folder}/{PurePosixPath('-'.join(below)).stem}")
        if name in owners:
            raise DataError(f"{source}: '{owners[name]}' and '{path}' would both be named '{name}'; rename one")
        owners[name] = path
        named.append((folder, name, path))
    return named


# ------------------------------------------------------------------------------------------- labels in a table beside


def _label_by_tables(
    source: str,
    frame: _Frame,
    labelled: dict[str, list[_Labelled]],
    loose: dict[str, list[str]],
    others: set[str],
    files: Mapping[str, Callable[[], bytes]],
) -> list[str]:
    """Move images of splits without class folders from `loose` to `labelled`, and their tables out of `others`."""
    notes = []
    tables = {split: _table_of(frame, split, others) for split in loose if split not in labelled}
    for table in sorted({table for table in tables.values() if table}):
        rows, found = labels_in(source, table, files[table](), frame.named), 0
        for split in [split for split, its in tables.items() if its == table]:
            # A table names files below its own folder, or below that of the images.
            folders = (table.rpartition("/")[0], "/".join(frame.bottoms[split]))
            label_of = {f"{folder}/{name}".lstrip("/"): label for name, label in rows.items() for folder in folders}
            known = [path for path in loose[split] if path in label_of]
            if known:
                labelled[split] = [(label_of[path], (path.rpartition("/")[2],), path) for path in known]
                loose[split] = [path for path in loose[split] if path not in label_of]
            found += len(known)
        if found < len(rows):
            notes.append(f"{source}: {len(rows) - found} rows of {table} name no image that lies beside it")
        others.discard(table)
    return notes


def _table_of(frame: _Frame, split: str, files: Collection[str]) -> str | None:
    """The table of labels that lies with the images of a split, or in a folder above them."""
    bottom = frame.bottoms[split]
    for depth in range(len(bottom), len(frame.top) - 1, -1):
        for name in _TABLES:
            if (path := "/".join((*bottom[:depth], name))) in files:
                return path
    return None


def _is_no_class(folder: str) -> bool:
    return _letters(folder) in _NO_CLASS


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _count(things: Sequence[object], what: str) -> str:
    """How many, with an s in the place of # where they are several."""
    return f"{len(things):,} {what.replace('#', '' if len(things) == 1 else 's')}"
