"""Where images come from: a folder, a zip, parquet, the Hugging Face hub, an .npz file, or the embedded images.

Every reader returns a `Source`: the class names of the whole source and, split by split, entries that can still be
read. `load` decodes the entries of one split into an `ImageSet`.

Folders and zips are not read with the `datasets` library, for its imagefolder reader (5.2) fails on a zip in
ImageFolder layout, puts test/train/*.png among the training images (CIFAR-100 has a class "train"), drops every label
beside a metadata.jsonl, and takes several seconds to list 10,000 files. Nothing is extracted or cached; only a hub id
leaves its download in the usual Hugging Face cache, so that it works offline later.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from uge.data.arrays import EMBEDDED, npz_source, read_embedded
from uge.data.decoding import SUFFIXES
from uge.data.entries import SPLIT_WORDS, DataWarning, Entry, Limits, Source, kinds_of, suffix_of
from uge.data.files import list_zip, open_zip, read_picture, read_tree, walk
from uge.data.images import ImageSet, Packed
from uge.data.splits import How, OwnSizesError, decoded, own_image
from uge.data.tables import by_split, read_hub, read_parquet
from uge.errors import DataError

_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` of the datasets library leaves beside .arrow files
_INSTEAD = {
    ".arrow": "write it with Dataset.to_parquet",
    ".csv": "name it metadata.csv, with columns file_name and label, put it beside its images and give their folder",
    ".npy": "write images and labels into one file with numpy.savez",
} | dict.fromkeys((".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"), "unpack it and give the folder")


def load(
    source: str | Path,
    split: str = "train",
    *,
    image_size: tuple[int, int] | None = None,
    cut: bool = True,
    convert: bool = False,
    skip_bad: bool = False,
    limits: Limits | None = None,
) -> ImageSet:
    """Read one split of a labelled image set.

    Args:
        source: a folder or .zip in ImageFolder layout (CLASS/*.png, or train/CLASS/*.png beside test/ and val/), a
            .parquet file or a folder of them, an .npz file (images and labels; or x_train and y_train, or train_images
            and train_labels, and so for test and val; uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]; optionally
            class_names), "hub:NAME" or "hub:NAME:CONFIGURATION", or an embedded name.
        split: "train", "test" or "val". A source without splits is all "train".
        image_size: (height, width) in pixels: every image is cut to this aspect and resized. Without it all images
            must be of one size.
        cut: off, images are resized whole, whatever their aspect: how networks see copies of photographs.
        convert: bring alpha, 16-bit, CMYK and mixed gray and RGB images to 8-bit gray or RGB; each kind of conversion
            is stated in one `DataWarning`.
        skip_bad: pass over files that cannot be read, and classes of nothing else; one `DataWarning` names them.
        limits: what the source may ask for; by default `Limits()`.

    Returns:
        The images in the order of their paths (or rows), named "class/file" after their files (or row numbers). Every
        file of the source is an image of a split, or of a kind that one `DataWarning` counts.

    Raises:
        DataError: the source, the split or an image in it cannot be used; the message names it.

    Example:
        >>> images = uge.load("photos")
        >>> images.class_names, len(images), images.image_size
        (('cat', 'dog'), 12, (32, 32))
    """
    if image_size is not None and min(image_size) < 1:
        raise DataError(f"image size {image_size[0]}x{image_size[1]} is empty; expected height and width in pixels")
    limits = limits or Limits()
    with ExitStack() as stack:
        found = _open(source, stack, limits, skip_bad)
        _tell(found.notes)
        entries = _entries_of(found, split, str(source))
        how = How(image_size, cut, convert, skip_bad, limits)
        made = decoded(found, entries, str(source), how)
        _tell(made.notes)
        return made.images


def splits_of(source: str | Path, *, skip_bad: bool = False, limits: Limits | None = None) -> tuple[str, ...]:
    """The splits that a source has, "train", "test" or "val".

    Raises:
        DataError: as `load`.
    """
    with ExitStack() as stack:
        return tuple(_open(source, stack, limits or Limits(), skip_bad).splits)


def _tell(notes: Iterable[str]) -> None:
    """Warn the caller of `load` or of a block of `photographs`."""
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=3)


@dataclass(frozen=True)
class Photographs:
    """Labelled images of any sizes, each read again from its source when it is asked for.

    Attributes:
        small: all of them as networks see them: as they are, where they are of one small size; else resized whole.
        sizes: (height, width) of each in pixels; None where `small` holds the images themselves.
        splits: that the source has, as `splits_of` says.
        packed: gives one image by its number as it lies in the source, ready to be sent: what decodes it there.
    """

    small: ImageSet
    sizes: tuple[tuple[int, int], ...] | None
    splits: tuple[str, ...]
    packed: Callable[[int], Packed]

    def __len__(self) -> int:
        return len(self.small)

    def own(self, number: int) -> Tensor:
        """One image at its own size, uint8 [C, H, W].

        Raises:
            DataError: the source has changed since it was opened.
        """
        return self.packed(number)()


@contextmanager
def photographs(
    source: str | Path,
    split: str = "train",
    *,
    working_size: int,
    picture_size: int = 0,
    convert: bool = False,
    skip_bad: bool = False,
    limits: Limits | None = None,
) -> Iterator[Photographs]:
    """Open one split of images of any sizes; only what networks see of them is held in memory.

    `working_size` is the side in pixels of the square that larger images, and those of different sizes, are seen at,
    and `picture_size` the same where all are of one class, or of none: an image file, or images in no class folder; 0
    refuses them. The rest is as for `load`, errors too.
    """
    limits = limits or Limits()
    with ExitStack() as stack:
        found = _open(source, stack, limits, skip_bad, pictures=picture_size > 0)
        _tell(found.notes)
        entries = _entries_of(found, split, str(source))
        alone = picture_size > 0 and all(one.label == other.label for one, other in pairwise(entries))
        working_size = picture_size if alone else working_size
        how = How(None, False, convert, skip_bad, limits, most_side=working_size, least_classes=2 - alone)
        try:
            made = decoded(found, entries, str(source), how)
        except OwnSizesError:
            pass
        else:
            _tell(made.notes)
            yield Photographs(made.images, None, tuple(found.splits), made.images.packed)
            return
        entries = list(entries)
        how = replace(how, image_size=(working_size, working_size), most_side=0)
        made = decoded(found, entries, str(source), how)
        _tell(made.notes)
        kept = [entries[number] for number in made.numbers]

        own_how = replace(how, image_size=None)

        def packed(number: int) -> Packed:
            facts = kept[number].where, own_how, made.sizes[number], made.images.channels
            return partial(own_image, kept[number].read(), *facts)

        yield Photographs(made.images, tuple(made.sizes), tuple(found.splits), packed)


def _entries_of(found: Source, split: str, source: str) -> Iterable[Entry]:
    """The entries of a split.

    Raises:
        DataError: there is no such split, or its labels are not told.
    """
    wanted = SPLIT_WORDS.get(split, split)
    if wanted in found.splits:
        return found.splits[wanted]
    have = ", ".join(found.splits) or "none"
    other = next((name for name in found.splits if name != "train"), None)
    mend = (
        f"measure on another one with --split {other}" if other and wanted != "train" else f"expected {wanted}/CLASS/*"
    )
    if wanted in found.unlabelled:
        count = found.unlabelled[wanted]
        raise DataError(
            f"{source}: the labels of the {count:,} images of split '{wanted}' are hidden (not of: {have}); {mend}"
        )
    raise DataError(f"{source} has no split '{split}', only: {have}; {mend}")


def check_exists(source: str | Path) -> None:
    """Refuse what is not there, before anything is asked or made.

    Raises:
        DataError: what was expected.
    """
    if isinstance(source, str) and (source in EMBEDDED or source.startswith("hub:")):
        return
    try:
        exists = Path(source).expanduser().exists()
    except (OSError, ValueError) as error:  # no name at all, or in a folder that may not be read
        raise DataError(f"cannot read {str(source)[:200]}: {getattr(error, 'strerror', None) or error}") from error
    if not exists:
        near = difflib.get_close_matches(str(source), EMBEDDED, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"embedded images: {', '.join(EMBEDDED)}"
        raise DataError(
            f"{source} does not exist; expected a folder, .zip, .parquet, .npz or picture, or hub:NAME ({hint})"
        )


def _open(source: str | Path, stack: ExitStack, limits: Limits, skip_bad: bool, pictures: bool = False) -> Source:
    """Find the reader for a source. What the reader holds open is closed with `stack`.

    With `pictures` it may be an image file, or hold images in no class folder.
    """
    if isinstance(source, str):
        if source in EMBEDDED:
            return read_embedded(source)
        if source.startswith("hub:"):
            return read_hub(source, limits)
    check_exists(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, stack, limits, skip_bad, pictures)
    match path.suffix.lower():
        case ".zip":
            tree = list_zip(path, open_zip(path, stack, limits), limits)
            return read_tree(tree, skip_bad=skip_bad, pictures=pictures)
        case ".parquet":
            return read_parquet({"train": [path]}, str(path), stack, limits)
        case ".npz":
            return npz_source(path, stack, limits)
        case suffix if pictures and suffix in SUFFIXES:
            return read_picture(path, limits)
    instead = _INSTEAD.get(path.suffix.lower(), "expected a folder, .zip, .parquet or .npz, or hub:NAME")
    raise DataError(f"{path} is of an unknown kind; {instead}")


def _read_folder(path: Path, stack: ExitStack, limits: Limits, skip_bad: bool, pictures: bool) -> Source:
    """An ImageFolder, or a folder of parquet files."""
    tree = walk(path, limits)
    if not any(suffix_of(file) in SUFFIXES for file in tree.files):
        if saved := next((file for file in tree.files if file.rpartition("/")[2] in _SAVED), None):
            raise DataError(
                f"{path} was written by save_to_disk ({saved}), which is not read; write parquet instead:"
                " datasets.load_from_disk(FOLDER)[SPLIT].to_parquet('SPLIT.parquet')"
            )
        if tables := [file for file in tree.files if suffix_of(file) == ".parquet"]:
            files = {split: [path / file for file in members] for split, members in by_split(str(path), tables).items()}
            source = read_parquet(files, str(path), stack, limits)
            rest = [file for file in tree.files if file not in tables]
            others = (f"{path}: {len(rest)} other files passed over: {kinds_of(rest)}",) if rest else ()
            return replace(source, notes=(*tree.all_notes(), *source.notes, *others))
    return read_tree(tree, skip_bad=skip_bad, pictures=pictures)
