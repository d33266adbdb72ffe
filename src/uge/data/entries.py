"""What a reader of a source gives to `load`: entries still to be read, and a word on everything that is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uge.errors import DataError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

SPLIT_WORDS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
}  # fmt: skip
MOST_NAMED = 3  # examples in one line


class DataWarning(UserWarning):
    """Something `load` did that the user should hear of: files passed over, images converted."""


@dataclass(frozen=True)
class Limits:
    """What one source may ask for, so that a small file cannot take all memory or disk.

    Attributes:
        pixels: of one image; its file may have 4 bytes a pixel.
        bytes: of all files of the source unpacked, and of all its images in memory.
        files: that the source holds, passed over or not.
    """

    pixels: int = 2**27
    bytes: int = 2**38
    files: int = 10**7

    @property
    def file_bytes(self) -> int:
        """The most bytes that one file may have: 4 a pixel, and room for what stands before them."""
        return 4 * self.pixels + 2**20

    def check(self, source: str, *, pixels: int = 0, bytes: int = 0, files: int = 0) -> None:
        """Refuse what asks for more.

        Raises:
            DataError: with the limit that was passed, and how to raise it.
        """
        for name, asked in (("pixels", pixels), ("bytes", bytes), ("files", files)):
            if asked > getattr(self, name):
                raise DataError(
                    f"{source} asks for {asked:,} {name}, at most {getattr(self, name):,} are read;"
                    f" if it is meant, run: uge --limit {name}={asked} COMMAND"
                )


@dataclass(frozen=True)
class Entry:
    """One image still to be read.

    Attributes:
        name: "class/file" without suffix; for rows, a name that may yet turn out not to be unique.
        label: position in the class names.
        where: names the image in errors.
        read: gives the bytes of the image file, or decoded pixels uint8 [H, W] or [H, W, C].
    """

    name: str
    label: int
    where: str
    read: Callable[[], bytes | Pixels]


@dataclass(frozen=True)
class Entries:
    """The entries of a split, made anew each time that they are gone through, so that none need be held."""

    make: Callable[[], Iterator[Entry]]

    def __iter__(self) -> Iterator[Entry]:
        return self.make()


@dataclass(frozen=True)
class Source:
    """What a reader found.

    Attributes:
        class_names: of all splits together, so that labels agree between them.
        splits: the entries of each, for as many times as they are wanted.
        unlabelled: splits whose images have no labels -> how many they are.
        notes: one line a kind of thing that was passed over or decided.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, Iterable[Entry]]
    unlabelled: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def some_names(names: Sequence[str]) -> str:
    """A few of the names, for one line: long ones without their middle."""
    room = 180 // max(1, min(len(names), MOST_NAMED))
    shown = ", ".join(
        name if len(name) <= room else f"{name[: room // 2 - 2]}...{name[1 - room // 2 :]}"
        for name in names[:MOST_NAMED]
    )
    return shown + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def kinds_of(names: Iterable[str]) -> str:
    """How many files of which suffix: "12 .heic, 3 .txt"."""
    counts = Counter(suffix_of(name) or "without a suffix" for name in names)
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    shown = ", ".join(f"{counts[kind]} {kind[:20]}" for kind in kinds[:MOST_NAMED])
    return shown + (f" and {sum(counts[kind] for kind in kinds[MOST_NAMED:])} more" if kinds[MOST_NAMED:] else "")


def suffix_of(name: str) -> str:
    """The suffix of "a/B.PNG" in small letters, ".png"; "" where there is none."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def error_line(error: BaseException) -> str:
    """What an error says on one line, not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."


def text_of(value: Any) -> Any:
    """Class names that a library gives as bytes -> str; anything else as it is."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def classes_of(
    values: Iterable[Any], names: Sequence[Any] | None, source: str
) -> tuple[tuple[str, ...], Callable[[Any, str], int]]:
    """Class names, and the way from a row's value to its label.

    `values` are all labels of all splits, hidden ones too, not looked at where the source has class names of which they
    are the positions.
    """
    if names is not None:
        known: dict[Any, int] = {position: position for position in range(len(names))}
        class_names = tuple(str(text_of(name)) for name in names)
    else:
        distinct = {value for value in map(text_of, values) if not is_hidden(value)}
        kinds = {type(value) for value in distinct}
        if kinds not in ({int}, {str}):
            got = ", ".join(sorted(kind.__name__ for kind in kinds)) or "none"
            raise DataError(f"{source}: labels are {got}; expected whole numbers or class names")
        known = {value: label for label, value in enumerate(sorted(distinct))}
        digits = max(len(str(value)) for value in distinct)  # padded, so that folders sort as the labels do
        class_names = tuple(f"{value:0{digits}d}" if isinstance(value, int) else value for value in known)

    def label_of(value: Any, where: str) -> int:
        value = text_of(value)
        if value not in known:
            raise DataError(f"{where} has the label {repr(value)[:40]}; expected one of {len(known)} classes")
        return known[value]

    return class_names, label_of


def is_hidden(value: Any) -> bool:
    """Whether a label says that it is not told: none at all, or -1 as hubs write it."""
    return value is None or (isinstance(value, int) and value < 0)
