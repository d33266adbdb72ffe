"""Where images come from: a folder, a zip, parquet, the Hugging Face hub, an .npz file, or the embedded images.

Every reader returns a `_Source`: the class names of the whole source and, split by split, entries that can still be
read. `load` decodes the entries of one split into an `ImageSet`.

Parquet and the hub are read with the `datasets` library. Folders and zips are not, for its imagefolder reader (5.2)
fails on a zip in ImageFolder layout, puts test/train/*.png among the training images (CIFAR-100 has a class "train"),
drops every label beside a metadata.jsonl, and takes several seconds to list 10,000 files. Nothing is extracted or
cached; only a hub id leaves its download in the usual Hugging Face cache, so that it works offline later.
"""

from __future__ import annotations

import difflib
import errno
import lzma
import math
import os
import re
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from glob import escape
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uge.data.decoding import SUFFIXES, UnreadableImage, decode, fit
from uge.data.images import ImageSet
from uge.errors import DataError

EMBEDDED = {
    "eurosat": (
        "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial",
        "Pasture", "PermanentCrop", "Residential", "River", "SeaLake",
    ),
}  # fmt: skip
"""Images that travel inside the package: name -> class names. Built by tools/build_eurosat.py."""

_SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
}  # fmt: skip

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class DataWarning(UserWarning):
    """Something `load` did that the user should hear of: files passed over, images converted."""


@dataclass(frozen=True)
class _Entry:
    """One image still to be read.

    Attributes:
        name: unique name without suffix; for rows, a name that may yet turn out not to be unique.
        label: position in the class names.
        where: names the image in errors.
        read: gives the bytes of the image file, or decoded pixels uint8 [H, W] or [H, W, C].
    """

    name: str
    label: int
    where: str
    read: Callable[[], bytes | Pixels]


@dataclass(frozen=True)
class _Source:
    """What a reader found: class names of all splits together, so that labels agree between them."""

    class_names: tuple[str, ...]
    splits: dict[str, Iterable[_Entry]]


def load(
    source: str | Path,
    split: str = "train",
    *,
    image_size: tuple[int, int] | None = None,
    convert: bool = False,
    skip_bad: bool = False,
) -> ImageSet:
    """Read one split of a labelled image set.

    Args:
        source: a folder or .zip in ImageFolder layout (CLASS/*.png, or train/CLASS/*.png beside test/ and val/), a
            .parquet file or a folder of them, an .npz file (images and labels, or x_train, y_train, x_test, y_test;
            uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]; optionally class_names), "hub:NAME", or an embedded name.
        split: "train", "test" or "val". A source without splits is all "train".
        image_size: (height, width) in pixels: every image is cut to this aspect and resized. Without it all images
            must be of one size.
        convert: bring alpha, 16-bit, CMYK and mixed gray and RGB images to 8-bit gray or RGB; each kind of conversion
            is stated in one `DataWarning`.
        skip_bad: pass over files that cannot be read; one `DataWarning` lists them.

    Returns:
        The images in the order of their paths (or rows), named "class/file" after their files (or row numbers).

    Raises:
        DataError: the source, the split or an image in it cannot be used; the message names it.
    """
    if image_size is not None and min(image_size) < 1:
        raise DataError(f"image size {image_size[0]}x{image_size[1]} is empty; expected height and width in pixels")
    with ExitStack() as stack:
        found = _open(source, stack)
        wanted = _SPLITS.get(split, split)
        if wanted not in found.splits:
            have = ", ".join(found.splits)
            raise DataError(
                f"{source} has no split '{split}', only: {have}; splits are folders (or files) of that name"
            )
        images, entries = _decode_all(
            found.splits[wanted], str(source), image_size=image_size, convert=convert, skip_bad=skip_bad
        )
    labels = torch.tensor([entry.label for entry in entries], dtype=torch.int64)
    present = labels.unique().tolist()
    if len(present) < 2:
        only = found.class_names[present[0]]
        raise DataError(f"{source} has one class only ('{only}'); expected at least two, each a folder of images")
    names = tuple(entry.name for entry in entries)
    if len(set(names)) < len(names):  # rows only: names of files were checked when they were listed
        names = tuple(f"{found.class_names[entry.label]}/{row:05d}" for row, entry in enumerate(entries))
    return ImageSet(images, labels, found.class_names, names)


# ---------------------------------------------------------------------------------------------------- decoding a split


def _decode_all(
    entries: Iterable[_Entry], source: str, *, image_size: tuple[int, int] | None, convert: bool, skip_bad: bool
) -> tuple[Tensor, list[_Entry]]:
    """The pixels uint8 [N, C, H, W] of all readable entries, and these entries.

    The pixels lie in a nameless temporary file that is mapped into memory: the system keeps there what it has room for
    and reads the rest again, so that images may take more space than there is memory. What is written to the tensor
    stays in memory alone.
    """
    kept: list[_Entry] = []
    skipped: list[str] = []
    conversions: Counter[str] = Counter()
    first_of: dict[int, str] = {}  # channels -> the first image that has them
    grays = 0
    size: tuple[int, int] | None = None
    with _scratch_file() as file:
        for entry in entries:
            try:
                pixels = _pixels_of(entry, image_size, convert, conversions)  # [H, W] or [H, W, C]
            except UnreadableImage:
                if not skip_bad:
                    raise
                skipped.append(entry.where)
                continue
            height, width = pixels.shape[:2]
            size = size or (height, width)
            if (height, width) != size:
                raise DataError(
                    f"mixed sizes: {kept[0].where} is {size[0]}x{size[1]} (height x width), {entry.where} is"
                    f" {height}x{width}; choose one with --image-size"
                )
            pixels = pixels.reshape(height, width, -1).transpose(2, 0, 1)  # -> [C, H, W]
            grays += len(pixels) == 1
            first_of.setdefault(len(pixels), entry.where)
            if len(first_of) == 2:
                if not convert:
                    raise DataError(
                        f"mixed colours: {first_of[1]} is gray, {first_of[3]} is RGB; --convert makes all RGB"
                    )
                if len(pixels) == 3 and grays == len(kept):  # the first RGB image: widen all before it
                    _widen(file, (len(kept), 1, height, width))
                pixels = np.broadcast_to(pixels, (3, height, width))
            file.write(pixels.tobytes())
            kept.append(entry)

        if skipped:
            _state(f"passed over {len(skipped)} unreadable of {len(skipped) + len(kept)} images: {', '.join(skipped)}")
        if not kept or size is None:
            raise DataError(f"{source} holds no readable image in this split")
        if len(first_of) == 2:
            conversions["brought from gray to RGB"] = grays
        for what, count in conversions.items():
            _state(f"{count} of {len(kept)} images {what}")
        file.flush()
        images = np.memmap(file, np.uint8, mode="c", shape=(len(kept), max(first_of), *size))
    return torch.from_numpy(images), kept


@contextmanager
def _scratch_file() -> Iterator[IO[bytes]]:
    """A file that goes with its last user; errors name the disk it lies on, and not the images."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        raise DataError(
            f"no room for the images in {tempfile.gettempdir()} ({error.strerror}); point TMPDIR at a larger disk"
        ) from error


def _widen(file: IO[bytes], shape: tuple[int, int, int, int]) -> None:
    """Write the gray images of a file as RGB in their place, the last one first."""
    count = shape[0]
    gray = math.prod(shape[1:])
    for number in reversed(range(count)):
        file.seek(number * gray)
        pixels = file.read(gray)
        file.seek(number * 3 * gray)
        file.write(3 * pixels)
    file.seek(0, os.SEEK_END)


def _pixels_of(entry: _Entry, image_size: tuple[int, int] | None, convert: bool, conversions: Counter[str]) -> Pixels:
    """The 8-bit pixels [H, W] (gray) or [H, W, 3] of one entry, in the wanted size."""
    content = entry.read()
    if isinstance(content, bytes):
        image = decode(content, entry.where, convert=convert, conversions=conversions)
    elif content.shape[2:] in ((), (3,)) and image_size in (None, content.shape[:2]):
        return content  # most arrays: spare them the way through Pillow
    else:
        array = Image.fromarray(np.ascontiguousarray(content))
        image = decode(array, entry.where, convert=convert, conversions=conversions)
    return np.asarray(image if image_size is None else fit(image, image_size))


def _state(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=4)  # points at the caller of `load`


# ------------------------------------------------------------------------------------------------- choosing the reader


def _open(source: str | Path, stack: ExitStack) -> _Source:
    """Find the reader for a source. What the reader holds open is closed with `stack`."""
    if isinstance(source, str):
        if source in EMBEDDED:
            return _read_embedded(source)
        if source.startswith("hub:"):
            return _read_hub(source)
    path = Path(source).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # no name at all, or in a folder that may not be read
        raise DataError(f"cannot read {str(source)[:200]}: {error.strerror or error}") from error
    if is_folder:
        return _read_folder(path, stack)
    if not exists:
        near = difflib.get_close_matches(str(source), EMBEDDED, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"embedded images: {', '.join(EMBEDDED)}"
        raise DataError(f"{source} does not exist; expected a folder, .zip, .parquet or .npz, or hub:NAME ({hint})")
    match path.suffix.lower():
        case ".zip":
            return _read_zip(path, stack)
        case ".parquet":
            return _read_parquet({"train": [path]}, path, stack)
        case ".npz":
            return _read_npz(path, stack)
    raise DataError(f"{path} is of an unknown kind; expected a folder, .zip, .parquet or .npz, or hub:NAME")


# ---------------------------------------------------------------------------------------------------- folders and zips


def _read_folder(path: Path, stack: ExitStack) -> _Source:
    """An ImageFolder, or a folder of parquet files."""
    files = [Path(folder, name).relative_to(path) for folder, names in _walk(path) for name in names]
    if Path("manifest.json") in files and Path("SHA256SUMS") in files:
        _state(
            f"{path} is a published copy, read as anybody reads it; what a recipient's network should see is"
            " uge.authorised_view(folder, key)"
        )
    tables = sorted(file for file in files if file.suffix == ".parquet" and not _is_hidden(file.parts))
    if tables and not any(file.suffix.lower() in SUFFIXES for file in files):
        return _read_parquet(_tables_by_split(path, tables), path, stack)
    return _image_tree(
        {PurePosixPath(file): partial(_read_file, path / file) for file in files}, str(path), where=f"{path}/"
    )


def _walk(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and their files; links are followed, as torchvision does, but not back to a folder that one is in."""
    for folder, folders, names in os.walk(path, onerror=_refuse, followlinks=True):
        yield folder, names
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        if links:
            place = Path(folder)
            above = {os.path.realpath(each) for each in (place, *place.parents)}
            loops = [name for name in links if os.path.realpath(os.path.join(folder, name)) in above]
            for name in loops:
                _state(f"passed over the link {Path(folder, name)}, which leads back to a folder that it lies in")
            folders[:] = [name for name in folders if name not in loops]


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed ({error.strerror}); make the folder readable") from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{path}: cannot be read ({error.strerror}); --skip-bad goes on without") from error


def _read_zip(path: Path, stack: ExitStack) -> _Source:
    """An ImageFolder inside a zip, read in place."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no readable zip ({error}); make or download it again") from error
    files: dict[PurePosixPath, Callable[[], bytes]] = {}
    for member in archive.infolist():
        if member.is_dir():
            continue
        inside = PurePosixPath(member.filename.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts:
            raise DataError(f"{path} holds the unsafe name '{member.filename}'; make it again from a plain folder")
        if inside in files:
            raise DataError(f"{path} holds '{inside}' twice; make it again from a plain folder")
        files[inside] = partial(_read_member, archive, member, f"{path}: {inside}")
    return _image_tree(files, str(path), where=f"{path}: ")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> bytes:
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise UnreadableImage(f"{where}: cannot be read ({error}); mend the zip, or --skip-bad") from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
        raise DataError(f"{where}: cannot be unpacked ({error}); make the zip again without encryption") from error


def _image_tree(files: dict[PurePosixPath, Callable[[], bytes]], source: str, *, where: str) -> _Source:
    """Class names and splits from the paths of files, however they are stored.

    A class is a folder; images deeper inside belong to it. Images outside of every class folder, other files and
    hidden files are passed over, as torchvision does. One folder around everything (as in most zips) is looked through.
    """
    images = [file for file in sorted(files) if file.suffix.lower() in SUFFIXES and not _is_hidden(file.parts)]
    paths = {file: file.parts for file in images}
    while all(len(parts) > 2 for parts in paths.values()) and len({parts[0] for parts in paths.values()}) == 1:
        if next(iter(paths.values()))[0].lower() in _SPLITS:
            break
        paths = {file: parts[1:] for file, parts in paths.items()}

    splits: dict[str, dict[PurePosixPath, tuple[str, ...]]] = {}
    for file, parts in paths.items():
        if len(parts) > 2 and parts[0].lower() in _SPLITS:
            splits.setdefault(_SPLITS[parts[0].lower()], {})[file] = parts[1:]
    outside = [file for file, parts in paths.items() if len(parts) > 1 and parts[0].lower() not in _SPLITS]
    if splits and outside:
        _state(f"{source}: {len(outside)} images beside the splits are passed over, such as {outside[0]}")
    splits = splits or {"train": {file: parts for file, parts in paths.items() if len(parts) > 1}}
    class_names = tuple(sorted({parts[0] for members in splits.values() for parts in members.values()}))
    if not class_names:
        raise DataError(f"{source} holds no image in a class folder; expected CLASS/*.png or train/CLASS/*.png")

    label_of = {name: label for label, name in enumerate(class_names)}
    entries: dict[str, Iterable[_Entry]] = {}
    for split, members in splits.items():
        owners: dict[str, PurePosixPath] = {}
        for file, parts in members.items():
            name = f"{parts[0]}/{PurePosixPath('-'.join(parts[1:])).stem}"
            if name in owners:
                raise DataError(f"{source}: '{owners[name]}' and '{file}' would both be named '{name}'; rename one")
            owners[name] = file
        entries[split] = [
            _Entry(name, label_of[members[file][0]], f"{where}{file}", files[file]) for name, file in owners.items()
        ]
    return _Source(class_names, entries)


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


# ------------------------------------------------------------------------------- tables: parquet files and the hub


def _tables_by_split(folder: Path, tables: Iterable[Path]) -> dict[str, list[Path]]:
    """Parquet files by the split that a folder (train/x.parquet) or the file (train-00000-of-00002.parquet) names."""
    by_split: dict[str | None, list[Path]] = {}
    for table in tables:
        words = [*(part.lower() for part in table.parts[:-1]), re.split(r"[-_.]", table.name.lower())[0]]
        split = next((_SPLITS[word] for word in words if word in _SPLITS), None)
        by_split.setdefault(split, []).append(folder / table)
    named = {split: files for split, files in by_split.items() if split is not None}
    return named or {"train": by_split[None]}


def _read_parquet(files: dict[str, list[Path]], path: Path, stack: ExitStack) -> _Source:
    """Parquet files with an image and a label column, streamed."""
    datasets = _datasets_library()
    cache = stack.enter_context(tempfile.TemporaryDirectory())  # even streaming leaves lock files in the cache
    patterns = {split: [escape(str(file.resolve())) for file in members] for split, members in files.items()}
    try:
        tables = datasets.load_dataset("parquet", data_files=patterns, cache_dir=cache, streaming=True)
    except Exception as error:  # the library lets through errors of many libraries below it
        raise DataError(f"{path} is no readable parquet ({_one_line(error)}); make or download it again") from error
    return _read_tables(dict(tables), str(path))


def _read_hub(source: str) -> _Source:
    """A data set of the Hugging Face hub by its id, in its default configuration."""
    datasets = _datasets_library()
    try:
        tables = datasets.load_dataset(source.removeprefix("hub:"))
    except Exception as error:  # network, name, licence gate, file format: each has its own family of errors
        raise DataError(
            f"{source} cannot be read ({_one_line(error)}); check the name and the network, or give a downloaded folder"
        ) from error
    return _read_tables({_SPLITS.get(name.lower(), name): table for name, table in tables.items()}, source)


def _datasets_library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError("parquet and hub ids need the library 'datasets'; run: pip install datasets") from error
    return datasets


def _read_tables(tables: dict[str, Any], source: str) -> _Source:
    """Splits as (iterable) data sets of the `datasets` library."""
    datasets = _datasets_library()
    features = next(iter(tables.values())).features
    image = _column(
        features,
        [name for name, kind in features.items() if isinstance(kind, datasets.Image)],
        ("image", "img", "images"),
        f"{source} has no image column",
    )
    label = _column(
        features,
        [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)],
        ("label", "labels", "fine_label", "class", "target"),
        f"{source} has no label column",
    )
    names = getattr(features[label], "names", None)
    if names is None:
        values = {split: [row[label] for row in _rows(table, [label], source)] for split, table in tables.items()}
    else:  # the labels are positions in these names, so nothing needs to be read first
        values = {split: [] for split in tables}
    class_names, label_of = _classes(values, names, source)

    def entries(split: str, table: Any) -> Iterator[_Entry]:
        table = table.cast_column(image, datasets.Image(decode=False))
        for number, row in enumerate(_rows(table, [image, label], source)):
            where = f"{source}: {split} row {number}"
            position = label_of(row[label], where)
            cell = row[image] or {"path": None, "bytes": None}
            stem = PurePosixPath(cell["path"] or f"{number:05d}").stem
            yield _Entry(f"{class_names[position]}/{stem}", position, where, partial(_read_cell, cell, where))

    return _Source(class_names, {split: entries(split, table) for split, table in tables.items()})


def _column(features: Iterable[str], typed: list[str], usual: tuple[str, ...], problem: str) -> str:
    """The one column of the right type, else the first with a usual name."""
    if len(typed) == 1:
        return typed[0]
    for name in usual:
        if name in (typed or features):
            return name
    raise DataError(f"{problem}: expected one named {' or '.join(usual)}, got {', '.join(features)}")


def _rows(table: Any, columns: list[str], source: str) -> Iterator[dict[str, Any]]:
    try:
        yield from table.select_columns(columns)
    except Exception as error:  # as in _read_parquet: damage may show only when a row is read
        raise DataError(f"{source} cannot be read ({_one_line(error)}); make or download it again") from error


def _read_cell(cell: dict[str, Any], where: str) -> bytes:
    """The bytes of an image cell; a path without bytes is a file on this machine (a data set made from a folder)."""
    if cell["bytes"] is not None:
        return cell["bytes"]
    if cell["path"] is None:
        raise UnreadableImage(f"{where}: holds no image; mend or remove it, or --skip-bad to go on without")
    return _read_file(Path(cell["path"]))


def _one_line(error: Exception) -> str:
    """An error's innermost cause on one line, not too long."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


# ---------------------------------------------------------------------------------------------- arrays: .npz, embedded


def _read_npz(path: Path, stack: ExitStack) -> _Source:
    """Arrays of a NumPy archive."""
    try:
        archive = np.load(stack.enter_context(path.open("rb")), allow_pickle=False)  # a pickle could run code
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no readable .npz file; write it again with numpy.savez") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is a single array; expected an .npz with images and labels: use numpy.savez")
    stack.enter_context(archive)

    keys = {"train": ("images", "labels")} if "images" in archive else {}
    keys |= {split: (f"x_{word}", f"y_{word}") for word, split in _SPLITS.items() if f"x_{word}" in archive}
    missing = [labels for _, labels in keys.values() if labels not in archive]
    if not keys or missing:
        need = (
            f"beside their images the arrays {', '.join(missing)}" if keys else "images and labels, or x_train, y_train"
        )
        raise DataError(f"{path} holds the arrays {', '.join(archive.files)}; expected {need}")

    labels = {split: _read_array(archive, key, path).reshape(-1) for split, (_, key) in keys.items()}
    names = [str(name) for name in _read_array(archive, "class_names", path)] if "class_names" in archive else None
    class_names, label_of = _classes({split: values.tolist() for split, values in labels.items()}, names, str(path))

    def entries(split: str) -> Iterator[_Entry]:
        key = keys[split][0]
        images = _channels_last(_read_array(archive, key, path), f"{path}: {key}")
        if len(images) != len(labels[split]):
            raise DataError(
                f"{path}: {key} holds {len(images)} images, but {keys[split][1]} {len(labels[split])} labels"
            )
        for number, value in enumerate(labels[split].tolist()):
            where = f"{path}: {key}[{number}]"
            position = label_of(value, where)
            yield _Entry(f"{class_names[position]}/{number:05d}", position, where, partial(_same, images[number]))

    return _Source(class_names, {split: entries(split) for split in keys})


def _read_array(archive: Any, key: str, path: Path) -> np.ndarray[Any, Any]:
    try:
        return archive[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: the array {key} cannot be read ({_one_line(error)}); write it again") from error


def _channels_last(images: np.ndarray[Any, Any], where: str) -> np.ndarray[Any, Any]:
    """uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] -> [N, H, W] or [N, H, W, C > 1]."""
    shape = images.shape
    if images.dtype == np.uint8 and images.ndim == 3:
        return images
    if images.dtype == np.uint8 and images.ndim == 4 and (shape[-1] in (1, 3, 4) or shape[1] in (1, 3, 4)):
        images = images if shape[-1] in (1, 3, 4) else images.transpose(0, 2, 3, 1)
        return images[..., 0] if images.shape[-1] == 1 else images
    raise DataError(f"{where} is {images.dtype} {list(shape)}; expected uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]")


def _same(pixels: Pixels) -> Pixels:
    return pixels


def _read_embedded(name: str) -> _Source:
    """The embedded grid of tiles: rows of 32x32 colour images, class after class, equally many of each."""
    class_names = EMBEDDED[name]

    def entries(split: str) -> Iterator[_Entry]:
        with (
            resources.files("uge.data").joinpath("embedded", f"{name}-{split}.webp").open("rb") as file,
            Image.open(file) as grid,
        ):
            rows, columns = grid.height // 32, grid.width // 32
            tiles = np.asarray(grid).reshape(rows, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
        per_class = len(tiles) // len(class_names)
        for number, pixels in enumerate(tiles):
            label, place = divmod(number, per_class)
            where = f"{name}: {split} image {number}"
            yield _Entry(f"{class_names[label]}/{place:04d}", label, where, partial(_same, pixels))

    return _Source(class_names, {split: entries(split) for split in ("train", "test")})


# ------------------------------------------------------------------------------------------------- labels of rows


def _classes(
    values: dict[str, list[Any]], names: Sequence[str] | None, source: str
) -> tuple[tuple[str, ...], Callable[[Any, str], int]]:
    """Class names, and the way from a row's value to its label.

    Args:
        values: every label value of every split; not needed where there are names.
        names: class names of which the values are positions, where the source has them.
        source: names the source in errors.
    """
    if names is not None:
        known: dict[Any, int] = {position: position for position in range(len(names))}
    else:
        every = {value for members in values.values() for value in members}
        distinct = {value for value in every if not (isinstance(value, int) and value < 0)}  # -1 means unlabelled
        kinds = {type(value) for value in distinct}
        if kinds not in ({int}, {str}):
            got = ", ".join(sorted(kind.__name__ for kind in kinds)) or "none"
            raise DataError(f"{source}: labels are {got}; expected whole numbers or class names")
        known = {value: label for label, value in enumerate(sorted(distinct))}
        digits = max(len(str(value)) for value in distinct)  # padded, so that folders sort as the labels do
        names = [f"{value:0{digits}d}" if isinstance(value, int) else value for value in known]

    def label_of(value: Any, where: str) -> int:
        if value not in known:
            raise DataError(f"{where} has the label {value!r}; expected one of {len(known)} classes")
        return known[value]

    return tuple(names), label_of
