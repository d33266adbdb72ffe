"""The files of a copy: lossless PNG, names that every file system takes, and what others do to both on the way."""

from __future__ import annotations

import io
import os
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, groupby, islice
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from uge.data.decoding import SUFFIXES, picture_of, tensor_of
from uge.data.files import COPY_MARKS
from uge.data.images import ImageSet, batch_of, composed
from uge.durable import check_target, new_folder
from uge.errors import PublishError
from uge.outside import read_file

T = TypeVar("T")
# A perturbation is noise to a compressor: it finds nothing to repeat, and searching would cost a quarter more time for
# files 0.1% to 0.5% smaller. What runs there are, black margins say, it finds.
COMPRESSION = {"compress_level": 6, "compress_type": zlib.Z_RLE}
MOST_BYTES = 512 * 2**20  # of a file of a copy
MOST_PIXELS = 2**27  # of an image of a copy
LONGEST_NAME = 255  # bytes, of file systems everywhere
PNG_ERRORS = (OSError, SyntaxError, ValueError, struct.error, zlib.error)
CHUNKS = {b"IHDR", b"IDAT", b"IEND"}  # of the files that are published: no text, no time, no profile, no orientation

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp")  # categories of Unicode: controls, marks of direction, spaces
_DEVICES = re.compile(r"\A(con|prn|aux|nul|com[0-9]|lpt[0-9])(?=\.|\Z)", re.IGNORECASE)  # files of Windows
_TOOLS = re.compile(
    r"""\.DS_Store|\._.*|\.localized|Icon\r|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd|\.TemporaryItems
    |__MACOSX|Thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|\$RECYCLE\.BIN|System\ Volume\ Information
    |\.directory|\.Trash-[0-9]+|lost\+found|\.nfs[0-9a-f]+|\.fuse_hidden.*|@eaDir|\.thumbnails
    |\.git|\.gitattributes|\.gitignore|\.gitkeep|\.hg|\.svn|\.dvc|\.dvcignore|\.cache|\.huggingface
    |\.dropbox(\.attr|\.cache)?|\.owncloudsync\.log|\.sync_[0-9a-f]+\.db.*|\.st(folder|versions|ignore)
    |\.idea|\.vscode|\.ipynb_checkpoints|.*:Zone\.Identifier""",
    re.IGNORECASE | re.VERBOSE,
)  # what git, hubs, file managers and cloud drives leave in a folder; no reader of data sets acts on any of it
_BEGINNINGS = (
    (rb"version https://git-lfs", "a pointer of git-lfs, not the file: run 'git lfs pull'"),
    (rb"\x89PNG(?!\r\n\x1a\n)", "line endings were changed in it, as if it were text; copy it again in binary mode"),
    (rb"\xff\xd8\xff", "re-encoded as JPEG, which changes pixels"),
    (rb"RIFF....WEBP", "re-encoded as WebP, which changes pixels"),
    (rb"GIF8", "re-encoded as GIF, which changes pixels"),
    (rb"BM", "re-encoded as BMP"),
    (rb"II\*\0|MM\0\*", "re-encoded as TIFF"),
    (rb"....ftyp(avif|heic|heix|mif1)", "re-encoded as AVIF or HEIC, which changes pixels"),
    (rb"\s*<(!DOCTYPE|html|\?xml)", "a web page in place of the file; download it again"),
)


def png_bytes(image: Tensor) -> bytes:
    """uint8 [C, H, W] -> PNG with pixels and nothing else: no text, no time."""
    buffer = io.BytesIO()
    picture_of(image).save(buffer, "PNG", **COMPRESSION)
    return buffer.getvalue()


def read_png(data: bytes) -> Tensor:
    """PNG -> uint8 [1 or 3, H, W]; raises one of PNG_ERRORS."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.mode not in ("L", "RGB"):
                raise ValueError(f"PNG mode {picture.mode}, expected 8-bit gray or RGB")
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.height}x{picture.width} pixels, at most {MOST_PIXELS:,} are read")
            return tensor_of(picture)
    except Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels, at most {MOST_PIXELS:,} are read") from error


def chunks_of(data: bytes) -> set[bytes]:
    """The kinds of chunks in a PNG file that can be read."""
    kinds, place = set(), 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kinds.add(data[place + 4 : place + 8])
        place += 12 + length
    return kinds


def what_became_of(data: bytes, error: object) -> str:
    """What somebody made of a PNG file that cannot be read any more; `error` says why, where nothing else does."""
    known = (words for pattern, words in _BEGINNINGS if re.match(pattern, data[:512], re.DOTALL))
    reason = getattr(error, "strerror", None) or (error if data else "empty")
    return next(known, f"unreadable ({reason})")


def in_batches(images: Iterable[tuple[T, Tensor]]) -> Iterator[tuple[list[T], Tensor]]:
    """Images of one size together, [B, C, H, W], as many as `batch_of` says, each with what came with it."""
    for shape, alike in groupby(images, key=lambda each: each[1].shape):
        while batch := list(islice(alike, batch_of(shape))):
            yield [what for what, _ in batch], torch.stack([image for _, image in batch])


@dataclass(frozen=True)
class CopyTree:
    """What lies in a folder that came from somewhere, and apart from it what programs left there on the way.

    Links to files are followed, for a hub's cache is made of them: what they lead to is held against the manifest.

    Attributes:
        files: "train/cat/1.png" in composed letters (NFC), whatever form a file system gave them -> where it lies.
        folders: the names of all folders below.
        left: what git, a hub's client, a file manager or a cloud drive put beside.
    """

    files: dict[str, Path]
    folders: tuple[str, ...]
    left: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> CopyTree:
        """List a folder. What shows images to readers of class folders is never taken for left over."""
        files: dict[str, Path] = {}
        below: list[str] = []
        left: list[str] = []
        for place, folders, names in os.walk(folder):
            here = Path(place)
            known = {name for name in (*folders, *names) if _TOOLS.fullmatch(name)}
            if here != folder:
                known -= {name for name in folders if name in known and _shows_images(here / name)}
            left += ((here / name).relative_to(folder).as_posix() for name in sorted(known))
            folders[:] = sorted(name for name in folders if name not in known)
            below += (composed((here / name).relative_to(folder).as_posix()) for name in folders)
            for name in sorted(set(names) - known, key=lambda name: (composed(name) != name, name)):
                file = (here / name).relative_to(folder).as_posix()
                files[file if composed(file) in files else composed(file)] = here / name
        return cls(files, tuple(below), tuple(left))

    @property
    def pngs(self) -> list[Path]:
        """Every PNG file, in the order of the names."""
        return [path for name, path in sorted(self.files.items()) if name.lower().endswith(".png")]


def _shows_images(folder: Path) -> bool:
    suffixes = (each.suffix.lower() for each in folder.rglob("*") if not each.name.startswith("._"))
    return any(suffix in SUFFIXES for suffix in suffixes)


def read_bytes(path: Path) -> bytes:
    """The content of a file of a copy.

    Raises:
        OSError: it cannot be read, is no file, or is too large to be one of a copy.
    """
    return read_file(path, MOST_BYTES, links=True)


def read_text(path: Path) -> tuple[bytes, bool]:
    r"""The content of a text file with lines that end in \n, as it was published, and whether it had to be changed."""
    data = read_bytes(path)
    plain = data.replace(b"\r\n", b"\n")
    return plain, plain != data


def safe_name(name: str) -> str:
    """A file name that every file system and data loader takes: no separators, nothing unseen, not hidden, composed.

    `datasets` also passes over folders whose names begin with two underscores.
    """
    taken = "".join(letter if _is_taken(letter) else "-" for letter in composed(name)).strip(" ._") or "-"
    return _DEVICES.sub(r"\1-", taken, count=1)


def _is_taken(letter: str) -> bool:
    if letter.isascii():
        return letter.isalnum() or letter in "_ .,+&'()@=-"
    return unicodedata.category(letter) not in _UNSEEN


def files_of(images: ImageSet) -> tuple[str, ...]:
    """The published path "train/<class>/<id>.png" of every image: its own name, made safe for any file system.

    Where two images would share a path, also on a file system that ignores case, the later one gets a number.

    Raises:
        PublishError: two classes would share a folder, a class has no image, or this system cannot write a name.
    """
    folders = [safe_name(name) for name in images.class_names]
    owners: dict[str, str] = {}
    for folder, name in zip(folders, images.class_names, strict=True):
        if owners.setdefault(folder.casefold(), name) != name:
            owner = owners[folder.casefold()]
            raise PublishError(f"classes {owner!r} and {name!r} would share the folder '{folder}'; rename one")
    empty = sorted(set(range(images.classes)) - set(images.labels.tolist()))
    if empty:  # ImageFolder numbers the folders it finds: without this one, every later label would shift
        raise PublishError(f"class {images.class_names[empty[0]]!r} has no image; leave the class out or add images")
    files: list[str] = []
    taken: set[str] = set()
    for name, label in zip(images.names, images.labels.tolist(), strict=True):
        own = name.removeprefix(images.class_names[label] + "/").removeprefix(folders[label] + "/")
        plain = f"train/{folders[label]}/{safe_name(own)}"
        file = next(f for n in count(1) if (f := plain if n == 1 else f"{plain}-{n}").casefold() not in taken) + ".png"
        taken.add(file.removesuffix(".png").casefold())
        if long := next((part for part in file.split("/") if len(part.encode()) > LONGEST_NAME), None):
            raise PublishError(f"a file called {long[:40]}... would have too long a name; rename {name[:40]}...")
        try:
            os.fsencode(file)
        except UnicodeEncodeError as error:
            raise PublishError(f"this system's locale cannot write the name {file!a}; set LC_ALL=C.UTF-8") from error
        files.append(file)
    return tuple(files)


def check_outside(out: Path | str, *sources: Path | str | None) -> None:
    """Refuse a target inside of a folder that is read: what is written there would be read as part of it from then on.

    Raises:
        PublishError: `out` lies in one of the sources, or in any copy; sources that are no folders are passed over.
    """
    place = os.path.realpath(out)
    copies = (up for up in Path(place).parents if all(os.path.exists(up / mark) for mark in COPY_MARKS))
    for source in (*sources, *copies):
        folder = os.path.realpath(os.path.expanduser(source or ""))
        if source and os.path.isdir(folder) and os.path.commonpath([folder, place]) == folder:
            raise PublishError(f"{out} lies inside {source}, and would become a part of it; give a folder outside")


def write_images(images: ImageSet, out: Path | str) -> None:
    """PNG files out/train/<class>/<id>.png and nothing else: a private folder that any program reads.

    Raises:
        PublishError: `out` is not empty, or cannot be written.
    """
    check_target(out)
    with new_folder(out, private=True) as folder:
        for file, image in zip(files_of(images), images.images, strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(png_bytes(image))
