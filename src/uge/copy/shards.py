"""Parquet shards: how many images are published, for `load_dataset` and every other reader of parquet."""

from __future__ import annotations

import errno
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from uge.copy.files import MOST_BYTES, read_bytes
from uge.data.entries import error_line


class ShardRow(NamedTuple):
    """An image of a shard: its PNG file, the name of that and its label."""

    content: bytes
    file: str
    label: int


def schema_of(class_names: Sequence[str]) -> bytes:
    """The columns `image` and `label`, as the `datasets` library marks them with their types and the class names."""
    from datasets import ClassLabel, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=list(class_names))})
    return bytes(features.arrow_schema.serialize().to_pybytes())


def shard_bytes(schema: bytes, rows: Sequence[ShardRow]) -> bytes:
    """A parquet file of these rows; PNG is compressed already."""
    import pyarrow as pa
    from pyarrow import parquet

    images = [{"bytes": row.content, "path": row.file} for row in rows]
    columns = {"image": images, "label": [row.label for row in rows]}
    table = pa.Table.from_pydict(columns, schema=pa.ipc.read_schema(pa.BufferReader(schema)))
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="none", use_dictionary=False, write_statistics=False)
    return buffer.getvalue()


def read_shard(path: Path) -> Sequence[ShardRow]:
    """The rows of a shard; that which was read last is held.

    Raises:
        OSError: it cannot be read, or is no shard.
    """
    found = path.stat()
    return _read_shard(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _read_shard(path: Path, changed: int, size: int) -> Sequence[ShardRow]:
    data = read_bytes(path)
    try:
        from pyarrow import parquet

        file = parquet.ParquetFile(io.BytesIO(data))
        if sum(file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups)) > MOST_BYTES:
            raise ValueError("it is too large to be one")
        rows = file.read(["image", "label"]).to_pylist()
        return [ShardRow(bytes(row["image"]["bytes"]), str(row["image"]["path"]), int(row["label"])) for row in rows]
    except Exception as error:  # the library lets through errors of many libraries below it
        raise OSError(errno.EIO, f"no readable shard: {error_line(error)}", str(path)) from error
