"""Labels that a table beside the images tells."""

from __future__ import annotations

import csv
import io
from pathlib import PureWindowsPath

from uge.errors import DataError
from uge.outside import parse_json

_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "category")


def labels_in(source: str, table: str, content: bytes, split: bool) -> dict[str, str]:
    """File name -> label, of a metadata.csv or .jsonl of the hub, or of Tiny ImageNet's annotations."""
    try:
        text = content.decode("utf-8-sig")
        if table.endswith(".txt"):
            return {row[0]: row[1] for row in csv.reader(io.StringIO(text), delimiter="\t") if row}
        rows = (
            [parse_json(line) for line in text.splitlines() if line.strip()]
            if table.endswith(".jsonl")
            else list(csv.DictReader(io.StringIO(text)))
        )
        label = next(name for name in _LABEL_COLUMNS if name in rows[0])
        found = {PureWindowsPath(str(row["file_name"])).as_posix(): row[label] for row in rows}
        splits = {str(row["split"]) for row in rows if row.get("split")}
    except (ValueError, csv.Error, IndexError, KeyError, TypeError, StopIteration) as error:
        raise DataError(
            f"{source}: {table} gives no labels; expected columns file_name and label, or class folders instead"
        ) from error
    if len(splits) > 1 and not split:  # no folders split the images: all of them would be published
        raise DataError(f"{source}: {table} has a column split, which is not read; expected folders train and test")
    odd = [value for value in found.values() if not isinstance(value, str | int) or value in ("", -1)]
    if odd:
        raise DataError(f"{source}: {table} has the label {str(odd[0])[:40]!r}; expected one name or number an image")
    return {name: str(value) for name, value in found.items()}
