"""Folders and zips: which files they hold, and how each is read. Links do not lead out, and nothing is extracted."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from uge.data.decoding import UnreadableImage
from uge.data.entries import Entry, Limits, Source, error_line, some_names
from uge.data.images import HALF_OF_A_PAIR
from uge.data.layout import PICTURE, class_layout, is_system
from uge.errors import DataError
from uge.outside import open_file, read_file

COPY_MARKS = {"manifest.json", "SHA256SUMS"}  # by which a folder is known to be a copy
COPY_FILES = COPY_MARKS | {"manifest.sig", "README.md", ".gitattributes"}
SYSTEM = "hidden or system files passed over"
OUTSIDE = "links lead out of it and are passed over; copy the files there if they are meant"
LOOPS = "links passed over, each leads back to a folder that it lies in"
SPECIAL = "pipes, sockets or devices passed over"
_DEFLATE64 = 9
_UNPACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}


@dataclass
class SourceTree:
    """The files of a folder or zip.

    Attributes:
        source: names it in errors.
        where: what stands before a file's path in errors.
        files: path ("a/b.png") -> what gives its content.
        empty: folders without a file.
        passed: what is said of files that are passed over, whether images or not -> their paths.
        notes: what else is to be said.
    """

    source: str
    where: str
    files: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    passed: dict[str, list[str]] = field(default_factory=lambda: {SYSTEM: [], OUTSIDE: [], LOOPS: [], SPECIAL: []})
    notes: list[str] = field(default_factory=list)

    def all_notes(self) -> tuple[str, ...]:
        """The notes, and one line a kind of what was passed over."""
        passed = [(what, sorted(paths)) for what, paths in self.passed.items() if paths]
        return (*self.notes, *(f"{self.source}: {len(paths)} {what}: {some_names(paths)}" for what, paths in passed))


def read_tree(tree: SourceTree, *, skip_bad: bool, pictures: bool) -> Source:
    """Classes and splits of a folder or zip of images.

    With `skip_bad` it goes on without classes of which no file can be read; `pictures` is as for `class_layout`.

    Raises:
        DataError: see `class_layout`; or a name cannot be written down.
    """
    files = tree.files
    if files.keys() >= COPY_MARKS:
        files = {path: read for path, read in files.items() if path not in COPY_FILES}
        tree.notes.insert(
            0,
            f"{tree.source} is a published copy, read as anybody reads it; what a recipient's network should see is"
            " uge.authorised_view(folder, key)",
        )
        tree.passed[SYSTEM] = [path for path in tree.passed[SYSTEM] if path not in COPY_FILES]
    if wrong := next(filter(HALF_OF_A_PAIR.search, files), None):
        raise DataError(f"{tree.source} holds the name {os.fsencode(wrong)!r}, which is not UTF-8; rename it")
    found = class_layout(tree.source, files, where=tree.where, empty=tree.empty, without=skip_bad, pictures=pictures)
    return replace(found, notes=(*tree.all_notes(), *found.notes))


def read_picture(path: Path, limits: Limits) -> Source:
    """One image file, which has no class."""
    real = Path(os.path.realpath(path))  # a link that the user names himself is meant
    entry = Entry(f"{PICTURE}/{path.stem}", 0, str(path), partial(_read_file, real, str(path), limits))
    return Source((PICTURE,), {"train": [entry]})


# ------------------------------------------------------------------------------------------------------------- folders


def walk(root: Path, limits: Limits) -> SourceTree:
    """The files of a folder. Links are followed inside of it, as torchvision does, but not out of it.

    Raises:
        DataError: a folder cannot be listed, or holds too many files.
    """
    tree = SourceTree(str(root), f"{root}/")
    top = os.path.realpath(root)
    allowed = _inside_of(top)
    waiting: list[tuple[str, str, tuple[str, ...]]] = [(top, "", (top,))]
    while waiting:
        folder, inside, above = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder} cannot be listed ({error.strerror}); make the folder readable") from error
        if not entries and inside:
            tree.empty.append(inside)
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            link = entry.is_symlink()
            real = os.path.realpath(entry.path) if link else entry.path
            if is_system(entry.name):
                tree.passed[SYSTEM].append(path)
            elif link and not any(f"{real}{os.sep}".startswith(each + os.sep) for each in allowed):
                tree.passed[OUTSIDE].append(path)
            elif real in above:
                tree.passed[LOOPS].append(path)
            elif os.path.isdir(real) if link else entry.is_dir():
                waiting.append((real, path, (*above, real)))
            elif link or entry.is_file():  # a link that leads nowhere, or to itself, is a file that cannot be read
                tree.files[path] = partial(_read_file, Path(real), tree.where + path, limits)
                limits.check(tree.source, files=len(tree.files))
            else:
                tree.passed[SPECIAL].append(path)
    return tree


def _inside_of(top: str) -> tuple[str, ...]:
    """The folders that links may lead to: the source itself, and for a snapshot of a hub's cache the cache's files."""
    place = Path(top)
    snapshots = next((each for each in (place, *place.parents) if each.parent.name == "snapshots"), None)
    return (top,) if snapshots is None else (top, str(snapshots.parent.parent / "blobs"))


def _read_file(path: Path, where: str, limits: Limits) -> bytes:
    try:
        return read_file(path, limits.file_bytes)
    except OSError as error:
        raise UnreadableImage(f"{where}: cannot be read ({error.strerror}); --skip-bad goes on without") from error


# ---------------------------------------------------------------------------------------------------------------- zips


def open_zip(path: Path, stack: ExitStack, limits: Limits) -> zipfile.ZipFile:
    """A zip of which every member can be unpacked.

    Raises:
        DataError: it is damaged, encrypted, packed in another way, or asks for too much.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_file(path, links=True))))
    except NotImplementedError as error:
        raise DataError(f"{path} asks for a newer unzip ({error}); unpack it and give the folder") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); expected a {path.suffix} file") from error
    except Exception as error:  # on damaged bytes the library raises errors of several types
        raise DataError(
            f"{path} is no readable {path.suffix} file ({error_line(error)}); make or download it again"
        ) from error
    members = archive.infolist()
    limits.check(str(path), files=len(members), bytes=sum(member.file_size for member in members))
    for member in members:
        how = "deflate64" if member.compress_type == _DEFLATE64 else f"method {member.compress_type}"
        if member.compress_type not in _UNPACKED:
            raise DataError(f"{path} is packed with {how}, which is not read here; unpack it and give the folder")
        if member.flag_bits & 1:
            raise DataError(f"{path} is encrypted; unpack it and give the folder")
    return archive


def list_zip(path: Path, archive: zipfile.ZipFile, limits: Limits) -> SourceTree:
    """The files of a zip, read in place.

    Raises:
        DataError: a name leads out of the zip, or is there twice.
    """
    tree = SourceTree(str(path), f"{path}: ")
    names = _names(tree, archive)
    folders = set()
    for member, name in zip(archive.infolist(), names, strict=True):
        inside = PurePosixPath(name.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts:
            raise DataError(f"{path} holds the unsafe name '{name[:80]}'; make it again from a plain folder")
        if any(map(is_system, inside.parts)):
            tree.passed[SYSTEM].append(str(inside))
        elif name.endswith(("/", "\\")):
            folders.add(str(inside))
        elif stat.S_ISLNK(member.external_attr >> 16):
            tree.passed[OUTSIDE].append(str(inside))
        elif str(inside) in tree.files:
            raise DataError(f"{path} holds '{inside}' twice; make it again from a plain folder")
        else:
            tree.files[str(inside)] = partial(read_member, archive, member, f"{path}: {inside}", limits)
    filled = {str(parent) for file in tree.files for parent in PurePosixPath(file).parents}
    tree.empty = sorted(folders - filled)
    return tree


def _names(tree: SourceTree, archive: zipfile.ZipFile) -> list[str]:
    """The members' names; those that do not say how they are encoded are read as UTF-8 where they all are that."""
    members = archive.infolist()
    unsaid = [member.filename for member in members if not member.flag_bits & 0x800 and not member.filename.isascii()]
    try:
        known = {name: name.encode("cp437").decode() for name in unsaid}  # zipfile has read them as cp437
    except UnicodeError:
        known = {}
        tree.notes.append(
            f"{tree.source}: {len(unsaid)} names do not say how they are encoded and may be wrong, such as"
            f" '{unsaid[0][:40]}'; make the zip again in UTF-8"
        )
    return [known.get(member.filename, member.filename) for member in members]


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, limits: Limits) -> bytes:
    """The content of a member, never more than it says and than the limits allow.

    Raises:
        UnreadableImage: it is damaged or too large.
    """
    if member.file_size > limits.file_bytes:
        raise UnreadableImage(
            f"{where}: unpacks to {member.file_size:,} bytes, at most {limits.file_bytes:,} are read;"
            f" --skip-bad goes on without, uge --limit pixels={-(-member.file_size // 4)} COMMAND reads it"
        )
    try:
        return archive.read(member)
    except Exception as error:  # as in `open_zip`
        raise UnreadableImage(f"{where}: cannot be read ({error_line(error)}); mend the zip, or --skip-bad") from error
