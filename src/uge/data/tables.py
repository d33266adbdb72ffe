"""Parquet files and the Hugging Face hub: rows with an image and a label, read a few at a time.

Images are bytes in the table. A table can also name files of this machine; whoever made it is not the one who reads it,
so no such file is opened, but for those that the hub's client has downloaded itself.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from uge.data.decoding import UnreadableImage
from uge.data.entries import SPLIT_WORDS, Entries, Entry, Limits, Source, classes_of, error_line, is_hidden, some_names
from uge.data.layout import split_of
from uge.errors import DataError
from uge.outside import open_file, read_file

_ROWS, _LABELS = 16, 10_000  # read at a time: photographs have megabytes each
_BUFFER = 2**20  # bytes of a column that are read at a time; 0 would be all
_PATH = ".path"  # of an image, beside its bytes
_IMAGE_COLUMNS = ("image", "img", "images")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")


@dataclass(frozen=True)
class _Table:
    """One split.

    Attributes:
        features: column -> its type, of the `datasets` library.
        schema: of arrow.
        batches: columns, rows at a time, the first row -> arrow tables or batches, from that row on.
    """

    features: dict[str, Any]
    schema: Any
    batches: Callable[[list[str], int, int], Iterable[Any]]

    def rows(self, columns: list[str], at_a_time: int, source: str, first: int = 0) -> Iterator[dict[str, Any]]:
        """Row by row, from the first.

        Raises:
            DataError: the table is damaged, which may show only here.
        """
        try:
            for batch in self.batches(columns, at_a_time, first):
                yield from batch.to_pylist()
        except Exception as error:  # the libraries let through errors of many libraries below them
            raise DataError(f"{source} cannot be read ({_cause(error)}); make or download it again") from error


def _cells(table: _Table, column: str, source: str) -> Callable[[int], Any]:
    """The cells of a column by the number of their row; in order, each is read once, and few are held."""
    coming, following = table.rows([column], _ROWS, source), 0

    def cell(number: int) -> Any:
        nonlocal coming, following
        if number != following:
            coming = table.rows([column], _ROWS, source, number)
        following = number + 1
        return next(coming)[column]

    return cell


def by_split(source: str, paths: Iterable[str]) -> dict[str, list[str]]:
    """Parquet files by the split that a folder (train/x.parquet) or the file (train-00000-of-00002.parquet) names.

    Raises:
        DataError: the files are those of several data sets, as configurations of the hub are.
    """
    splits: dict[str, list[str]] = {}
    sets: dict[str, str] = {}
    for path in sorted(paths):
        *folders, file = path.split("/")
        words = re.split(r"[-_.]", file[: -len(".parquet")])
        named = [name for name in (*folders, *words) if split_of(name)]
        splits.setdefault(str(split_of(named[0])) if named else "", []).append(path)
        rest = [name for name in (*folders, *words) if name not in named and not name.isdecimal() and name != "of"]
        sets.setdefault("/".join(rest), path)
    if len(sets) > 1:
        raise DataError(
            f"{source} holds parquet files of {len(sets)} data sets ({some_names(list(sets.values()))});"
            " give one of the files, or a folder with the files of one"
        )
    if len(splits) > 1 and "" in splits:
        raise DataError(f"{source}: {some_names(splits[''])} names no split, but others do; name it train, test or val")
    return {split or "train": files for split, files in splits.items()}


def read_parquet(files: dict[str, list[Path]], source: str, stack: ExitStack, limits: Limits) -> Source:
    """Parquet files of every split, with an image and a label column, which `stack` closes.

    Raises:
        DataError: they are damaged, ask for too much, or hold no images with one label each.
    """
    from pyarrow import parquet

    tables = {}
    for split, members in files.items():
        try:
            opened = [
                parquet.ParquetFile(stack.enter_context(open_file(file, links=True)), buffer_size=_BUFFER)
                for file in members
            ]
            features = _features_of(opened[0].schema_arrow)
            groups = [table.metadata.row_group(at) for table in opened for at in range(table.metadata.num_row_groups)]
        except Exception as error:  # as in `rows`
            reason = getattr(error, "strerror", None) or _cause(error)
            raise DataError(f"{source} is no readable parquet ({reason}); make or download it again") from error
        limits.check(
            source,
            bytes=sum(group.total_byte_size for group in groups),
            files=sum(table.metadata.num_rows for table in opened),
        )
        tables[split] = _Table(features, opened[0].schema_arrow, partial(_batches_of, opened))
    return _read_tables(tables, source, (), limits)


def _features_of(schema: Any) -> dict[str, Any]:
    """Column -> its type where the `datasets` library wrote the table, else None."""
    from datasets import Features

    known = Features.from_arrow_schema(schema) if b"huggingface" in (schema.metadata or {}) else {}
    return {name: known.get(name) for name in schema.names}


def _batches_of(opened: list[Any], columns: list[str], at_a_time: int, first: int) -> Iterator[Any]:
    """Groups of rows that end before the first row are not read."""
    number = 0
    for table in opened:
        for group in range(table.num_row_groups):
            begins, number = number, number + table.metadata.row_group(group).num_rows
            if number <= first:
                continue
            for batch in table.iter_batches(batch_size=at_a_time, row_groups=[group], columns=columns):
                if begins + len(batch) > first:
                    yield batch.slice(max(0, first - begins))
                begins += len(batch)


def read_hub(source: str, limits: Limits) -> Source:
    """A data set of the Hugging Face hub: "hub:NAME", or "hub:NAME:CONFIGURATION".

    Raises:
        DataError: it cannot be had, or holds no images with one label each.
    """
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    name, _, configuration = source.removeprefix("hub:").partition(":")
    try:
        found = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # network, name, licence gate, file format: each has its own family of errors
        if "Config name is missing" in str(error):
            names = re.findall(r"'([^']+)'", str(error).partition("[")[2].partition("]")[0]) or ["NAME"]
            raise DataError(
                f"{source} has several configurations ({some_names(names)}); give one, as in hub:{name}:{names[0]}"
            ) from error
        raise DataError(
            f"{source} cannot be read ({_cause(error)}); check the name and the network, or give a downloaded folder"
        ) from error
    tables = {
        SPLIT_WORDS.get(split.lower(), split): _Table(
            dict(table.features), table.features.arrow_schema, partial(_arrow_batches, table.with_format("arrow"))
        )
        for split, table in found.items()
    }
    cache = tuple(os.path.realpath(place) for place in (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE))
    return _read_tables(tables, source, cache, limits)


def _arrow_batches(table: Any, columns: list[str], at_a_time: int, first: int) -> Iterable[Any]:
    return table.select_columns([name.removesuffix(_PATH) for name in columns]).skip(first).iter(batch_size=at_a_time)


def _cause(error: BaseException) -> str:
    """What the innermost cause of an error says: the libraries wrap those of others."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error_line(error)


def _read_tables(tables: dict[str, _Table], source: str, cache: tuple[str, ...], limits: Limits) -> Source:
    """Classes and entries of tables of one data set; `cache` are folders whose files a cell may name."""
    from datasets import ClassLabel, Image

    features = next(iter(tables.values())).features
    typed = [name for name, kind in features.items() if isinstance(kind, Image)]
    image = _column(features, typed, _IMAGE_COLUMNS, f"{source} has no image column")
    typed = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    label = _column(features, typed, _LABEL_COLUMNS, f"{source} has no label column")
    others = [name for name in typed if name != label]
    notes = (f"{source}: labels are those of column {label}, not of {some_names(others)}",) if others else ()
    for split, table in tables.items():
        got = table.schema.names
        if any(got.count(name) != 1 for name in (image, label)):
            raise DataError(f"{source}: {split} has columns {some_names(got)}; expected one {image} and one {label}")

    counts: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    values = set()
    names = getattr(features[label], "names", None)
    for split, table in tables.items():
        for row in table.rows([label], _LABELS, source):
            value = row[label]
            counts[split] += 1
            if isinstance(value, list | dict):
                raise DataError(f"{source}: column {label} holds {type(value).__name__}s; expected one label an image")
            hidden[split] += is_hidden(value)
            values.add(value)
    class_names, label_of = classes_of(values, names, source)

    def entries(split: str) -> Iterator[Entry]:
        table = tables[split]
        cells = _cells(table, image, source)
        kind = table.schema.field(image).type  # paths may stand beside the bytes
        paths = [image + _PATH for at in range(kind.num_fields) if kind.field(at).name == "path"]
        for number, row in enumerate(table.rows([label, *paths], _ROWS, source)):
            where = f"{source}: {split} row {number}"
            position = label_of(row[label], where)
            path = (row.get(image) or {}).get("path")
            stem = PureWindowsPath(path).stem if isinstance(path, str) else ""  # whatever system the path is of
            yield Entry(
                f"{class_names[position]}/{stem or f'{number:05d}'}",
                position,
                where,
                partial(_read_cell, partial(cells, number), where, image, cache, limits),
            )

    unlabelled = {split: count for split, count in hidden.items() if count == counts[split]}
    splits = {split: Entries(partial(entries, split)) for split in tables if split not in unlabelled}
    return Source(class_names, splits, unlabelled, notes)


def _column(features: Iterable[str], typed: list[str], usual: tuple[str, ...], problem: str) -> str:
    """The one column of the right type, else the first with a usual name."""
    if len(typed) == 1:
        return typed[0]
    for name in usual:
        if name in (typed or features):
            return name
    raise DataError(f"{problem}: expected one named {' or '.join(usual)}, got {some_names(list(features))}")


def _read_cell(read: Callable[[], Any], where: str, column: str, cache: tuple[str, ...], limits: Limits) -> bytes:
    """The bytes of an image cell; of a file only where it lies in the hub's own cache."""
    found = read()
    cell = found if isinstance(found, dict) else {"bytes": found}
    content, path = cell.get("bytes"), cell.get("path")
    if isinstance(content, bytes):
        if len(content) > limits.file_bytes:
            raise UnreadableImage(f"{where}: has {len(content):,} bytes, at most {limits.file_bytes:,} are read")
        return content
    if isinstance(content, str):
        raise DataError(
            f"{where}: column {column} holds text ({content[:20]!r}...), a path or base64; expected the bytes of an"
            " image file: read or decode them into the column"
        )
    if content is None and not path:
        raise UnreadableImage(f"{where}: holds no image; mend or remove it, or --skip-bad to go on without")
    if content is None and isinstance(path, str):
        if any(os.path.realpath(path).startswith(place + os.sep) for place in cache if "\0" not in path):
            try:
                return read_file(path, limits.file_bytes, links=True)
            except OSError as error:
                raise UnreadableImage(f"{where}: cannot be read ({error.strerror}); download it again") from error
        raise DataError(
            f"{where}: names the file {path[-60:]!r} and holds no image; files that a table names are not read:"
            " write the images into the table"
        )
    raise DataError(f"{where}: column {column} holds {type(content).__name__}s; expected the bytes of an image file")
