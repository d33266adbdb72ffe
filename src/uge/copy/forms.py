"""How published images lie in a folder: a PNG file each, or, where they are many, rows of parquet shards.

few    train/<class>/<id>.png       entries in manifest.json
many   train/<number>.parquet       entries in train/<number>.json, of which manifest.json has the hash
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from uge.copy.files import PNG_ERRORS, CopyTree, read_bytes, read_png
from uge.copy.manifest import Manifest, PublishedImage, shard_json
from uge.copy.shards import ShardRow, read_shard, schema_of, shard_bytes

LEAST_SHARDED = 50_000  # images: so many files take long to list, to copy and to upload
MOST_VALUES, MOST_SHARD_VALUES = 2**21, 2**24  # of the images of a chunk: 682 and 5,461 of 32x32 in colour


@dataclass(frozen=True)
class Form:
    """How images are written: a file each, or in shards of a schema.

    Attributes:
        most: values of the images that are written together, at most.
        schema: of `schema_of`, for what makes it takes longer to load than a shard to write; None for a file each.
    """

    most: int
    schema: bytes | None = None

    def write(
        self, folder: Path, number: int, entries: Sequence[PublishedImage], contents: Sequence[bytes]
    ) -> dict[str, str]:
        """Write the PNG files `contents` of a chunk below `folder`; each file's SHA-256 as it lies there."""
        images = zip(entries, contents, strict=True)
        if self.schema is None:
            files = {entry.file: content for entry, content in images}
        else:
            rows = [ShardRow(content, entry.file, entry.label) for entry, content in images]
            name = f"train/{number:05d}"
            files = {f"{name}.json": shard_json(entries), f"{name}.parquet": shard_bytes(self.schema, rows)}
        for parent in {file.rpartition("/")[0] for file in files}:
            (folder / parent).mkdir(parents=True, exist_ok=True)
        return {file: write(folder / file, content) for file, content in files.items()}


def form_of(count: int, class_names: Sequence[str]) -> Form:
    """How so many images are published."""
    if count < LEAST_SHARDED:
        return Form(MOST_VALUES)
    return Form(MOST_SHARD_VALUES, schema_of(class_names))


def write(path: Path, data: bytes) -> str:
    """Write a file of a copy; its SHA-256."""
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Place:
    """Where an image lies: in a file of its own, or in a row of a shard."""

    path: Path
    row: int | None = None

    def read(self) -> bytes:
        """Its PNG file.

        Raises:
            OSError: it cannot be read.
        """
        return read_bytes(self.path) if self.row is None else self._row(self.row).content

    def told(self, entry: PublishedImage) -> tuple[str, int]:
        """The name and the label that whoever reads the folder without its manifest is told."""
        return (entry.file, entry.label) if self.row is None else self._row(self.row)[1:]

    def _row(self, row: int) -> ShardRow:
        rows = read_shard(self.path)
        if row >= len(rows):
            raise OSError(errno.EIO, f"the shard has {len(rows)} images alone", str(self.path))
        return rows[row]

    def __str__(self) -> str:
        return str(self.path) if self.row is None else f"{self.path} row {self.row}"


def image_in(place: Place) -> Tensor | None:
    """The image that lies there, uint8 [1 or 3, H, W]; None if there is none."""
    try:
        return read_png(place.read())
    except PNG_ERRORS:
        return None


def places_of(tree: CopyTree, manifest: Manifest) -> dict[str, Place]:
    """Where what lies in a folder lies, by the names that the manifest has; what is not there is not in it."""
    if not manifest.shards:
        return {name: Place(path) for name, path in sorted(tree.files.items())}
    rows = ((shard, row) for shard in manifest.shards for row in range(shard.images))
    return {
        entry.file: Place(tree.files[shard.data], row)
        for entry, (shard, row) in zip(manifest.images, rows, strict=True)
        if shard.data in tree.files
    }
